"""Runs that an older release made are reported, gone on with and exported; see stored/README.md."""

import hashlib
import importlib.util
import json
import pathlib
import platform
import shlex
import shutil

import jax
import numpy as np
import pytest
from language_models import STORIES
from language_tasks import InProcess

import thicket_jax as tj
from thicket_jax.cli.main import main
from thicket_jax.runs import checkpoints, files
from thicket_jax.tasks.language import shared

STORED = pathlib.Path(__file__).parent / "stored" / "runs.tar.xz"
# SHA-256 of the leaves of the best expert, one after another, as that release exported it.
BEST = {
    "signals": "8cff2137f2998f6511ee34123b41bf2bd82d95ff1369b568e78b9d2b15ec8fa7",
    "stories": "3740f0f588b057bcc90ad18ec4fb273848b5ad9c7631ec24c0a275234a8014ee",
}
FOUND = ("experts.json", "items.npz")
pytestmark = pytest.mark.usefixtures("undrawn")
needs_stories = pytest.mark.skipif(
    not STORIES.is_dir() or importlib.util.find_spec("transformers") is None,
    reason=f"needs transformers, and the model stories260K at {STORIES}",
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The stored runs in the current directory, as if this release had made them."""
    shutil.unpack_archive(STORED, tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    for run in tmp_path.iterdir():
        set_release(run, tj.__version__)
    return tmp_path


def set_release(run, version):
    """Resume refuses a run of another release; what the tests ask is asked of the same one."""
    for path in (run / "config.json", run / "log" / "identity.json"):
        value = json.loads(path.read_text().replace("MODEL", str(STORIES)))
        value["versions"]["thicket_jax"] = version
        path.write_text(json.dumps(value))


def identity(run):
    return json.loads((run / "log" / "identity.json").read_text())


def same_bits(run):
    """Whether arithmetic is that of the stored run: the same JAX on the same kind of processor."""
    return identity(run)["versions"]["jax"] == jax.__version__ and platform.machine() == "x86_64"


def resume(run):
    return main(["resume", str(run), "--backend", "none", "--quiet"])


def alike(old, new):
    """Whether `new` has all that `old` has, numbers up to rounding."""
    if isinstance(old, dict):
        return all(name in new and alike(value, new[name]) for name, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(alike, old, new))
    return new == (pytest.approx(old, rel=1e-6) if isinstance(old, float) else old)


@pytest.mark.parametrize("name", ["signals", "stories"])
def test_a_finished_run_is_reported_again(runs, name):
    before = json.loads((runs / name / "results.json").read_text())
    before["provenance"]["versions"]["thicket_jax"] = tj.__version__
    assert main(["report", name]) == 0
    assert alike(before, json.loads((runs / name / "results.json").read_text()))
    assert (runs / name / "report.html").exists() and (runs / name / "report.md").exists()


@pytest.mark.parametrize("name", ["interrupted", "halving"])
def test_an_interrupted_run_goes_on_to_what_a_new_run_finds(runs, name, capsys):
    config = json.loads((runs / name / "config.json").read_text())
    words = shlex.split(config["command"])[1:]
    assert words[-2:] == ["--out", name]
    assert main([*words[:-1], "new"]) == 0
    changed = files.differences(identity(runs / name), identity(runs / "new"))
    if not same_bits(runs / name) and changed:
        assert resume(name) == 2
        said = capsys.readouterr().err
        assert all(phrase in said for phrase in changed)
        return
    assert not changed and resume(name) == 0
    for file in FOUND:
        assert (runs / name / file).read_bytes() == (runs / "new" / file).read_bytes()
        if name == "interrupted":  # the older release finished it, too
            assert (runs / name / file).read_bytes() == (runs / "signals" / file).read_bytes()


@needs_stories
def test_a_run_of_text_goes_on_to_what_the_older_release_found(runs, capsys, monkeypatch):
    """Its fingerprints hold the name of its grader, which therefore never moves."""
    monkeypatch.setattr(shared, "Graders", InProcess)  # a worker takes a second to start
    run = runs / "stories"
    before = {file: (run / file).read_bytes() for file in FOUND}
    for file in (*FOUND, "results.json"):
        (run / file).unlink()
    shutil.rmtree(sorted((run / "log").glob("experts_*"))[-1])
    if identity(run)["versions"]["jax"] != jax.__version__:
        assert resume(run) == 2 and "versions.jax was" in capsys.readouterr().err
        return
    assert resume(run) == 0
    if same_bits(run):
        assert {file: (run / file).read_bytes() for file in FOUND} == before


@pytest.mark.parametrize("name", ["signals", pytest.param("stories", marks=needs_stories)])
def test_an_exported_expert_has_the_bits_that_the_older_release_exported(runs, name):
    if name == "signals" and not same_bits(runs / name):
        pytest.skip("gaussian noise has these bits with the JAX and the processor of the run alone")
    assert main(["export", name, "--rank", "1", "--to", "best"]) == 0
    if name == "stories":
        from safetensors.numpy import load_file

        tree = load_file("best/model.safetensors")
    else:
        tree = checkpoints.load(pathlib.Path("best"))
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    assert digest.hexdigest() == BEST[name]


def test_a_run_of_another_release_is_refused_by_name(runs, capsys):
    set_release(runs / "interrupted", "0.1.0")
    assert resume("interrupted") == 2
    said = capsys.readouterr().err
    assert 'versions.thicket_jax was "0.1.0", is now' in said and len(said.splitlines()) == 1
