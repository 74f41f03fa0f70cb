"""The lab of programs for chips that are not here: its formulas, and a tiny program for a TPU."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment_runs import ROOT

from thicket_jax.text.cache import empty_cache
from thicket_jax.text.model import abstract, forward


def operations(config, tokens, slots, last_only):
    """Of one pass of `tokens` of 4 rows, as the compiler counts them before it optimises."""

    def run(params, words, places, seen):
        cache = empty_cache(config, 4, slots, "bfloat16", unroll=True)
        return forward(config, params, words, places, cache, seen, last_only)[0]

    words = jax.ShapeDtypeStruct((4, tokens), jnp.int32)
    seen = jax.ShapeDtypeStruct((4, tokens, slots), jnp.bool_)
    lowered = jax.jit(run).lower(abstract(config, "bfloat16"), words, words, seen)
    return lowered.cost_analysis()["flops"]


def test_operations_are_those_that_the_compiler_counts(experiment):
    aot, roofline = (experiment(f"experiments.bench.{name}") for name in ("aot", "roofline"))
    config = dataclasses.replace(aot.config_of("0.5B"), num_layers=2, vocab_size=4096)
    config = dataclasses.replace(config, ropes=config.ropes[:2], windows=config.windows[:2])
    work = roofline.Work(experts=3, rows=4, prompt=16, new=16, rank=None)
    found, _ = roofline.prefill(config, work)
    assert found == pytest.approx(3 * operations(config, 16, 16, True), rel=0.02)
    found, _ = roofline.step(config, work)
    assert found == pytest.approx(3 * operations(config, 1, 32, True), rel=0.02)


def test_bytes_and_rates_follow_from_the_peaks(experiment):
    aot, chips, roofline = (
        experiment(f"experiments.bench.{name}") for name in ("aot", "chips", "roofline")
    )
    config = aot.config_of("0.5B")
    count = roofline.parameters(config)
    assert count["all"] == 494_032_768  # Qwen2.5-0.5B, by its model card 0.49 B
    dense = roofline.Work(experts=4, rows=64, prompt=128, new=128, rank=None)
    thin = dataclasses.replace(dense, rank=1)
    weights, caches = 2 * (count["layers"] + count["head"]), 2 * 24 * 64 * 2 * 64 * 256 * 2
    assert roofline.step(config, dense)[1] == 4 * (weights + caches)
    factors = (roofline.step(config, thin)[1] - weights) / 4 - caches
    assert 0 < factors < 0.01 * weights  # shared weights are read once for all
    held = roofline.held_bytes(config, dense)
    assert held == {"base": 2 * count["all"], "weights": 8 * count["all"], "caches": 4 * caches}
    one = chips.Chips("one", "tpu", "", 1, flops=1e12, bandwidth=1e30, memory=1e9)
    two = dataclasses.replace(one, count=2)
    found, both = (roofline.bound(config, dense, kind) for kind in (one, two))
    seconds = roofline.prefill(config, dense)[0] + 127 * roofline.step(config, dense)[0]
    assert found["seconds"] == pytest.approx(seconds / 1e12) and found["step_bound"] == "operations"
    assert found["tokens_per_s"] == pytest.approx(4 * 64 * 128 / found["seconds"])
    assert both["experts_per_s"] == pytest.approx(2 * found["experts_per_s"])
    slow = dataclasses.replace(one, flops=1e30, bandwidth=1e9)
    assert roofline.bound(config, dense, slow)["step_bound"] == "bytes"


def test_collectives_are_counted_with_their_bytes(experiment):
    collectives = experiment("experiments.bench.aot_program").collectives
    text = """
      %a = bf16[4,8]{1,0} all-gather(bf16[1,8] %x), dimensions={0}
      %b = (f32[2,3]{1,0:T(8,128)}, f32[]) all-reduce-start(f32[2,3] %y, f32[] %z)
      %c = f32[2,3] all-reduce(f32[2,3] %y)
      ROOT %d = f32[2] add(f32[2] %all-reduce, f32[2] %c)
    """
    assert collectives(text) == {
        "all-gather": {"count": 1, "bytes": 64},
        "all-reduce": {"count": 2, "bytes": 28 + 24},
    }


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='the extra "aot" is not installed'
)
def test_a_tiny_decoder_compiles_for_a_tpu_and_depth_is_no_code(tmp_path):
    program = (
        "import dataclasses, json\n"
        "from experiments.bench import aot, chips\n"
        "from experiments.bench.aot_program import compile_for\n"
        "config, found = aot.config_of('small'), []\n"
        "for L in (2, 6):\n"
        "    deep = dataclasses.replace(config, num_layers=L, ropes=config.ropes[:L],\n"
        "                               windows=config.windows[:L])\n"
        "    work = dataclasses.replace(aot.work_for(chips.ALL[0], deep, 'rademacher', True),\n"
        "                               rows=32, prompt=32, new=32)\n"
        "    held = aot.roofline.held_bytes(deep, work)\n"
        "    found.append(compile_for(chips.ALL[0], deep, 'rademacher', work) | held)\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    flat, deep = json.loads(done.stdout.splitlines()[-1])
    assert deep["code"] < 1.1 * flat["code"] and not deep["collectives"]
    more = deep["temporaries"] - flat["temporaries"]
    grown = sum(deep[name] - flat[name] for name in ("weights", "caches"))
    assert more < 1.5 * grown


def test_without_a_compiler_it_says_which_package_to_install(experiment, monkeypatch, capsys):
    topologies = pytest.importorskip("jax.experimental.topologies")

    def missing(*_, **__):
        raise RuntimeError("no plugin")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    experiment("experiments.bench.aot")
    main = experiment("experiments.bench.__main__").main
    assert main(["aot", "--quick", "--out", os.devnull + "x"]) == 2
    lines = capsys.readouterr()
    assert 'pip install ".[aot]"' in lines.err and len(lines.err.splitlines()) == 1


def test_targets_and_text_of_programs_that_fit_and_one_that_does_not(experiment, monkeypatch):
    aot = experiment("experiments.bench.aot")
    names = ["compile_seconds", "code", "arguments", "outputs", "temporaries"]
    found = dict.fromkeys(names, 30.0) | {"flops": None, "bytes": None}
    found |= {"collectives": {"all-reduce": {"count": 2, "bytes": 8}}}
    monkeypatch.setattr(aot.chips_of, "devices", lambda kind: [])
    monkeypatch.setattr(aot, "SHAPES", ("0.5B", "7B"))

    def compiled(kind, config, law, work):
        fits = config.hidden_size < 1000 or kind.name == "H100"
        return dict(found) if fits else {"too_large": "RESOURCE_EXHAUSTED: so much"}

    monkeypatch.setattr(aot, "compile_for", compiled)
    result = aot.run(False, chips="v5e-4,H100")
    assert result["about"] == "v5e-4-H100"
    met = {row["name"]: row["met"] for row in result["targets"]}
    assert met["low rank 1, 0.5B, v5e-4: seconds of compiling"] is False
    assert met["gaussian, 0.5B, v5e-4: seconds of compiling"] is True
    assert met["low rank 1, 7B, H100: tokens/s by the roofline"] is True and len(met) == 5
    text = aot.text(result)
    assert "does not fit" in text and "2 all-reduce" in text and "| H100, 7B, gaussian |" in text


def test_fewer_experts_where_more_do_not_fit(experiment):
    aot, chips = (experiment(f"experiments.bench.{name}") for name in ("aot", "chips"))
    config = aot.config_of("7B")
    kinds = {kind.name: kind for kind in chips.ALL}
    assert aot.work_for(kinds["v5p-64"], config, "rademacher", False).experts == 4
    assert aot.work_for(kinds["H100"], config, "rademacher", False).experts == 2
    assert aot.work_for(kinds["v5e-4"], config, "gaussian", False).experts == 1
    assert aot.work_for(kinds["H100"], config, "low rank 1", False).experts == 16
    assert np.isfinite(list(aot.roofline.held_bytes(config, aot.work_for(
        kinds["H100"], config, "gaussian", False)).values())).all()  # fmt: skip
