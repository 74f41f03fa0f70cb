"""An expert of a language model as a checkpoint: the bits that were scored, and no log needed."""

import json
import shutil

import numpy as np
import pytest
from language_models import make_checkpoint

import thicket_jax as tj
from thicket_jax.cli.main import main
from thicket_jax.experts.leaves import leaf_paths
from thicket_jax.runs import export
from thicket_jax.text import pretrained

COMMON = "--num 3 --k 1,2 --train-items 2 --test-items 2 --max-tokens 2 --sigma 0.1 --quiet"


def run_stories(folder, *words):
    out = folder / "run"
    words = ["run", "stories", "--model", str(folder / "model"), *COMMON.split(), *words]
    assert main([*words, "--out", str(out), "--backend", "none"]) == 0
    # What an export reads is experts.json, config.json and the base; nothing else is left.
    shutil.rmtree(out / "log")
    (out / "items.npz").unlink()
    return out


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_exported_expert_is_the_bits_that_were_scored(precision, tmp_path, capsys):
    base = make_checkpoint(tmp_path / "model")
    run = run_stories(tmp_path, "--precision", precision)
    assert main(["export", str(run), "--rank", "1", "--to", str(tmp_path / "best")]) == 0
    best = export.load_population(run)[0]
    wanted = tj.perturb(pretrained.load(base, precision).params, best)
    found = pretrained.load(tmp_path / "best")
    assert found.dtype == precision
    for (name, one), (_, other) in zip(leaf_paths(found.params), leaf_paths(wanted), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), name
    modes = {path.stat().st_mode for path in (tmp_path / "best").glob("*.[js]*")}
    assert len(modes) == 1, "the weights are as readable as the config"
    notes = json.loads((tmp_path / "best" / "thicket.json").read_text())
    assert notes["experts"]["ids"] == [int(best.ids)] and notes["rank"] == 1
    if precision == "float32":
        check_transformers_opens(tmp_path / "best", found)
        check_merge(run, tmp_path / "merged", base)
    capsys.readouterr()
    assert main(["export", str(run), "--rank", "1", "--to", str(tmp_path / "best")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def check_merge(run, to, base):
    assert main(["export", str(run), "--merge", "2", "--to", str(to)]) == 0
    wanted = tj.merge(pretrained.load(base).params, export.load_population(run)[:2])
    for (name, one), (_, other) in zip(
        leaf_paths(pretrained.load(to).params), leaf_paths(wanted), strict=True
    ):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), name


def check_transformers_opens(folder, ours):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tensors = dict(leaf_paths(ours.params))
    for name, tensor in theirs.state_dict().items():
        if name in tensors:
            np.testing.assert_array_equal(tensor.numpy(), np.asarray(tensors[name]))
    assert transformers.AutoTokenizer.from_pretrained(folder).eos_token == "</s>"


def test_a_base_that_changed_is_not_exported(tmp_path, capsys):
    make_checkpoint(tmp_path / "model")
    run = run_stories(tmp_path)
    shutil.rmtree(tmp_path / "model")
    make_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    assert main(["export", str(run), "--rank", "1", "--to", str(tmp_path / "best")]) == 2
    assert "not those of" in capsys.readouterr().err
    assert not (tmp_path / "best").exists()
