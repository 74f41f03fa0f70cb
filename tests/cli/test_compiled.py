"""Compiled programs are kept between processes."""

import pathlib
import subprocess
import sys

import jax

from thicket_jax.cli import compiled

PROGRAM = """
import pathlib, sys
from thicket_jax.cli import compiled
tally = compiled.keep(pathlib.Path(sys.argv[1]))
import jax
print(jax.jit(lambda x: jax.numpy.sin(x).sum())(jax.numpy.ones(8)))
print(tally.line())
"""


def test_the_second_process_compiles_nothing_and_says_so(tmp_path):
    lines = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=pathlib.Path(__file__).parents[2],
        )
        assert not done.stderr
        lines.append(done.stdout.splitlines())
    assert lines[0][0] == lines[1][0]
    assert lines[0][1].startswith("compiled ") and lines[0][1].endswith(" 0 were in the cache")
    assert lines[1][1].startswith("compiled nothing: all ")


def test_a_cache_that_is_configured_stays(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    assert before  # by the tests' own configuration
    tally = compiled.keep(tmp_path)
    assert jax.config.jax_compilation_cache_dir == before
    assert not list(tmp_path.iterdir())
    assert tally.line() == ""
