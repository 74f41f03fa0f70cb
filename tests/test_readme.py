"""The README's code runs, and says what it says."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["nnx", "linen", "dict"])
def test_the_readmes_code_runs_in_a_plain_world(block):
    """In a plain JAX, without the strict settings of these tests."""
    import jax

    assert len(block.strip().splitlines()) <= 20
    names = {}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec(compile(block, "README.md", "exec"), names)
    if "labels" in names:
        assert names["labels"].shape == (256,)
        assert names["result"].table["ensemble"][-1]["k"] == 10
    if "curve" in names:
        assert names["curve"].shape == (64, 1)
        assert names["result"].scores.values.max() > names["result"].table["base"]["train"]
    if "theta" in names:
        assert len(names["experts"]) == 10
        gain = names["score"](names["theta"], names["batch"]).mean()
        assert gain > names["score"](names["params"], names["batch"]).mean()


def test_the_commands_of_the_readme_exist():
    for command in ("tasks", "run", "resume", "report", "export"):
        assert f"thicket {command}" in README
    assert "pip install . && thicket run signals" in README
    assert 'pip install ".[dev]" && pytest' in README
