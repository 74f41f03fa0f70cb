"""experiments/bench: the benchmarks in their quick forms, and their arithmetic."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment_runs import done


@pytest.fixture(scope="module")
def quick_benchmarks(tmp_path_factory):
    """The quick forms of the smaller benchmarks, run in one process: name → (result, text)."""
    folder = tmp_path_factory.mktemp("bench")
    names = ("noise", "low_rank", "decoder", "blocks", "mappers", "compiling", "memory", "calls")
    names += ("cost_of_n",)
    program = (
        "import contextlib, pathlib, sys\n"
        "import jax\n"
        "from experiments.bench.__main__ import main\n"
        "jax.config.update('jax_num_cpu_devices', 2)\n"
        "jax.devices()\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    with open(folder / f'{name}.md', 'w') as said, contextlib.redirect_stdout(said):\n"
        "        assert main([name, '--quick', '--out', str(folder)]) == 0\n"
    )
    done("-c", program, str(folder), *names, module=False)
    return {
        name: (
            json.loads((folder / f"{name}-cpu.json").read_text()),
            (folder / f"{name}.md").read_text(),
        )
        for name in names
    }


def held(target, limit, at_least):
    """Whether a target is well formed and judged by its own number."""
    measured = target["measured"]
    right = measured >= limit if at_least else measured <= limit
    return target["limit"] == limit and target["met"] == right


def test_noise_benchmark(quick_benchmarks):
    result, text = quick_benchmarks["noise"]
    assert "| copy-and-add; 1 leaf" in text
    assert result["quick"] and result["provenance"]["cores"] >= 1
    limits = [1.3, 4.5] + [0.1] * 5
    for target, limit in zip(result["targets"], limits, strict=True):
        assert held(target, limit, at_least=False)
    for table in result["layouts"].values():
        assert len(table) == 6
        for row in table.values():
            assert len(row["samples"]) == result["rounds"]
            assert row["median"] == pytest.approx(np.median(row["samples"]))
            expected = row["median"] / table["copy-and-add"]["median"]
            assert row["ratio"] == pytest.approx(expected)
            assert row["temporary_bytes"] < 0.1 * 4 * result["parameters"]


def test_low_rank_benchmark(quick_benchmarks):
    result, text = quick_benchmarks["low_rank"]
    ((shape, found),) = result["shapes"].items()
    rows = found["rows"]
    assert shape == "16 x 2" and "| 16 x 2; streamed, rademacher |" in text
    pure = rows.pop("without noise")
    assert len(rows) == 6 and pure["share"]["median"] == 1
    for row in rows.values():
        assert row["share"]["median"] == pytest.approx(row["rows_per_s"] / pure["rows_per_s"])
        assert row["share"]["min"] <= row["share"]["median"] <= row["share"]["max"]
    for target, limit in zip(result["targets"], (0.94, 0.9), strict=True):
        assert held(target, limit, at_least=True)
    rates = result["rates"]
    for factors, words in (("gaussian", 16 * 2 * 32), ("rademacher", 16 * 2 * 2)):
        floor = found["floors"][factors]
        assert floor["words"] == words and floor["values"] == 16 * 2 * 32
        assert floor["operations"] == 32 * 2 * 4 * 16 and floor["bytes"] == 32 * 2 * 16 * 4
        seconds = max(floor["operations"] / rates["flops"], floor["bytes"] / rates["bytes"])
        seconds += floor["values"] / rates[factors]
        assert floor["share"] == pytest.approx(1 / (1 + seconds / floor["pure_seconds"]))


def test_decoder_benchmark(quick_benchmarks):
    result, text = quick_benchmarks["decoder"]
    rows = result["rows"]
    assert len(rows) == 2 and "| low-rank, rademacher, side by side |" in text
    fastest = max(row["tokens_per_s"] for name, row in rows.items() if name.startswith("base"))
    for name, row in rows.items():
        assert row["share_of_fastest"] == pytest.approx(row["tokens_per_s"] / fastest)
        base = rows[f"base, {name.rpartition(', ')[2]}"]
        share = row["tokens_per_s"] / base["tokens_per_s"]
        assert row["share"]["median"] == pytest.approx(share)
        assert row["rows_per_call"] == result["devices"] * 2 * result["prompts"]


def test_block_and_mapper_benchmarks(quick_benchmarks):
    result, text = quick_benchmarks["blocks"]
    for sweep in result["sweeps"].values():
        times = {n: row["seconds_per_expert"]["median"] for n, row in sweep["rows"].items()}
        taken = times.pop("auto")
        assert times[sweep["best"]] == min(times.values()) and set(times) == {"1", "2"}
        share = sweep["rows"]["auto"]["share"]["median"]
        assert share == pytest.approx(min(times.values()) / taken)
        assert f"the best is {sweep['best']}, `auto` takes" in text
    result, text = quick_benchmarks["mappers"]
    assert set(result["rows"]) == {"none on 1", "pmap on 2", "shard_map on 2"}
    plain = result["rows"]["none on 1"]
    for name, row in result["rows"].items():
        for kind in ("call", "round_trip"):
            own, its = (r[f"{kind}_seconds"]["median"] for r in (row, plain))
            assert row[f"{kind}_ratio"]["median"] == pytest.approx(own / its)
        own, its = (r["seconds_per_expert"]["median"] for r in (row, plain))
        assert row["throughput"]["median"] == pytest.approx(its / own) and f"| {name} |" in text


def test_calls_benchmark(quick_benchmarks):
    result, text = quick_benchmarks["calls"]
    assert list(result["rows"]) == ["1", "2"] and "| scorer |" in text
    for row in result["rows"].values():
        assert list(row) == ["jitted", "scorer", "score, stated block", "score, auto"]
    limits = [0.3, 2, 2, 1, 8, 8]
    for target, limit in zip(result["targets"], limits, strict=True):
        assert held(target, limit, at_least=False)


def test_compiling_and_memory_benchmarks(quick_benchmarks):
    result, text = quick_benchmarks["compiling"]
    assert [(row["law"], row["layers"]) for row in result["rows"]] == [
        ("dense", 2),
        ("low-rank", 2),
    ]
    for row in result["rows"]:
        alone = result["alone"][str(row["layers"])]["median"]
        assert row["ratio"]["median"] == pytest.approx(row["seconds"]["median"] / alone)
        assert row["seconds"]["median"] > alone > 0
    assert "| low-rank; 64; 2; 2 |" in text
    result, text = quick_benchmarks["memory"]
    rows, size = result["rows"], result["parameter_bytes"]
    assert size == 3 * 4 * 32 * 32 and "| dense, block 1, streamed |" in text
    for row in rows.values():
        assert row["temporary_share"] == pytest.approx(row["temporary_bytes"] / size)
        assert row["peak_bytes"]["median"] >= 0
    for block in (1, 4):
        whole = rows[f"dense, block {block}"]["temporary_bytes"]
        assert rows[f"dense, block {block}, streamed"]["temporary_bytes"] < whole
        assert rows[f"low-rank, block {block}"]["temporary_bytes"] < whole


@pytest.mark.usefixtures("fast_compiling")
def test_parts_of_a_roll_out(experiment):
    """Where ReLU is the identity, the program without it finds the same errors."""
    import thicket_jax as tj
    from thicket_jax.tasks.signals import model as signal_model

    parts = experiment("experiments.bench.scoring_parts")
    shapes = jax.eval_shape(lambda: signal_model.initialise(jax.random.key(0), "xavier"))
    draw = np.random.default_rng(1)
    params = jax.tree.map(  # biases are 0
        lambda x: draw.uniform(0, 0.03 * (x.ndim > 1), x.shape).astype(x.dtype), shapes
    )
    points = np.random.default_rng(0).random((3, 14), np.float32)
    batch = {"context": points[:, :10], "future": points[:, 10:]}
    both = (signal_model.roll_out_score, parts._linear_score)
    whole, linear = jax.jit(lambda p: [f(p, batch, jnp.float32) for f in both])(params)
    np.testing.assert_allclose(linear, whole, rtol=1e-5)
    experts = tj.population(jax.random.key(1), 2, 0.01)
    found = parts.measure(params, batch, experts, jnp.float32, 1, 2)
    assert sum(found["parts"].values()) == pytest.approx(1)
    names = (parts.WHOLE, parts.GIVEN, parts.LINEAR, parts.PRODUCTS)
    assert tuple(found["seconds"]) == names
    noise = 1 - found["seconds"][parts.GIVEN]["median"] / found["seconds"][parts.WHOLE]["median"]
    assert found["parts"]["noise"] == pytest.approx(noise)


def test_cost_of_n_compiles_once_and_keeps_its_memory(quick_benchmarks):
    result, text = quick_benchmarks["cost_of_n"]
    assert "| 40; 4 |" in text
    small, large = result["fixed"].values()
    for row in (small, large):
        assert row["compilations"] == [1] and row["compilations_while_scoring"] == [0]
        assert row["score_seconds"]["median"] > 0
        assert row["peak_bytes"]["median"] > 2**20
    assert small["temporary_bytes"] == large["temporary_bytes"]
    met = {target["name"]: target["met"] for target in result["targets"]}
    assert len(met) == 3 and met["compilations of a search, largest over N"]


@pytest.mark.usefixtures("fast_compiling")
def test_random_checkpoints_are_whole(experiment, tmp_path):
    pytest.importorskip("transformers")
    from thicket_jax.experts.leaves import leaf_rows
    from thicket_jax.text import pretrained, prompts

    random_checkpoint = experiment("experiments.bench.random_checkpoint")
    count = random_checkpoint.write_checkpoint(tmp_path, "tiny", "bfloat16")
    loaded = dict(leaf_rows(pretrained.load(tmp_path).params))
    made = random_checkpoint.random_params(pretrained.read_config(tmp_path), "bfloat16")
    assert sum(leaf.size for leaf in loaded.values()) == count
    for name, leaf in leaf_rows(made):
        assert (leaf.shape, leaf.dtype) == (loaded[name].shape, loaded[name].dtype)
        spread = np.asarray(loaded[name], np.float32).std()
        assert spread == 0 if "norm" in name else 0.01 < spread < 0.03
    tokenizer, text = prompts.open_tokenizer(tmp_path), "Use the numbers 3, 57, 91 to make 36."
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text and len(tokens) < 24 and max(tokens) < 512


@pytest.mark.usefixtures("fast_compiling")
def test_accelerator_benchmark_runs_with_a_tiny_shape(experiment, monkeypatch):
    module = experiment("experiments.bench.text_accelerator")
    monkeypatch.setitem(module.random_checkpoint.SHAPES["tiny"], "num_hidden_layers", 1)
    size = dataclasses.replace(module.TINY, laws=("rademacher",))
    found = module.decode_once("tiny", size)
    (row,) = found["laws"].values()
    assert row["tokens_per_s"] == pytest.approx(4 * 4 * row["experts_per_s"])
    assert row["perturb_share"] > 0 and found["rows_at_once"] == 4
    result = {"dtype": "bfloat16", "rows": {"tiny": found}}
    assert "| tiny (0.00 G parameters), rademacher | 1 |" in module.text(result)


def test_text_benchmark_asks_for_its_model(experiment, tmp_path, capsys):
    main = experiment("experiments.bench.__main__").main
    assert main(["text", "--quick", "--out", str(tmp_path)]) == 2
    assert "text needs --model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_kendall_agrees_with_counting_pairs(experiment):
    kendall = experiment("experiments.bench.scoring").kendall
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(size=9)
    pairs = [(i, j) for i in range(9) for j in range(i)]
    agree = sum((a[i] > a[j]) == (b[i] > b[j]) for i, j in pairs)
    assert kendall(a, b) == pytest.approx((2 * agree - len(pairs)) / len(pairs))
    assert kendall(a, a) == pytest.approx(1) and kendall(a, -a) == pytest.approx(-1)


def test_without_torch_the_rest_runs_and_says_how_to_install_it(experiment, tmp_path):
    pretraining = experiment("experiments.bench.pretraining")
    nothing = tmp_path / "python"
    nothing.write_text("#!/bin/sh\nexit 1\n")
    nothing.chmod(0o755)
    result = pretraining.run(quick=True, torch_python=str(nothing))
    assert "PyTorch" not in " ".join(result["rows"]) and result["targets"][0]["met"] is None
    assert 'pip install ".[bench]"' in pretraining.text(result)
