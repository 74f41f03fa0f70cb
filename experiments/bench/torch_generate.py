"""Experts of a language model as one writes them with transformers: perturb, generate, next.

What the text benchmark compares with. A program of its own, without JAX and without thicket_jax; it
answers requests as torch_loop.py does.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM


class Loop:
    """A checkpoint and its prompts."""

    def __init__(self, folder: str, prompts: str, device: str) -> None:
        """Reads the model, float32, and `tokens` and `mask` [B, P], padded left."""
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.device = device
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.to(device).eval()
        self.base = [parameter.detach().clone() for parameter in self.model.parameters()]
        arrays = np.load(prompts)
        self.tokens = torch.from_numpy(arrays["tokens"].astype(np.int64)).to(device)
        self.mask = torch.from_numpy(arrays["mask"].astype(np.int64)).to(device)

    @torch.no_grad()
    def perturb(self, seed: int, sigma: float) -> None:
        """Sets the model to base + sigma · noise, in place."""
        torch.manual_seed(seed)
        for parameter, origin in zip(self.model.parameters(), self.base, strict=True):
            parameter.copy_(origin + sigma * torch.randn_like(origin))

    @torch.no_grad()
    def generate(self, num_tokens: int, filler: int) -> np.ndarray:
        """Returns the generated tokens [B, T], greedy, all prompts at once."""
        out = self.model.generate(
            input_ids=self.tokens,
            attention_mask=self.mask,
            max_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=filler,
        )
        return out[:, self.tokens.shape[1] :].cpu().numpy()

    def score(self, num: int, sigma: float, num_tokens: int, eos: list[int]) -> dict[str, Any]:
        """Generates with experts 0 to num − 1; returns seconds, tokens in all, and the last's."""
        began = time.perf_counter()
        outputs = []
        for seed in range(num):
            self.perturb(seed, sigma)
            outputs.append(self.generate(num_tokens, eos[0] if eos else 0))
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "tokens": sum(_count(out, eos) for out in outputs),
            "last": outputs[-1].tolist(),
        }


def _count(tokens: np.ndarray, eos: list[int]) -> int:
    """The generated tokens of all rows, a row's first end token included."""
    ends = np.isin(tokens, eos)
    first = np.where(ends.any(-1), ends.argmax(-1) + 1, tokens.shape[1])
    return int(first.sum())


def main() -> None:
    """Answers requests until the input ends."""
    device, loop = "cpu", None
    for line in sys.stdin:
        request = json.loads(line)
        kind = request.pop("do")
        answer: dict[str, Any] = {}
        if kind == "start":
            if request["accelerator"] and torch.cuda.is_available():
                device = "cuda"
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            answer = {**versions, "device": device}
        elif kind == "threads":
            torch.set_num_threads(request["count"])
        elif kind == "load":
            loop = Loop(request["folder"], request["prompts"], device)
        else:
            assert loop is not None
            answer = loop.score(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
