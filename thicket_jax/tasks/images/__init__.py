"""Image classification under changed conditions."""
