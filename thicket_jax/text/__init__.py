"""The language-model side: checkpoints, decoding, prompts and grading; needs the extra `text`."""
