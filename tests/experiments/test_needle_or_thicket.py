"""The experiment on needles and thickets: its quick form, its rules, its arithmetic."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from thicket_jax.tasks.signals.model import initialise, next_value, roll_out

NAME = "experiments.needle_or_thicket"


@pytest.fixture
def experiment(experiment):
    """Imports a module of the experiment by its short name."""
    return lambda name: experiment(f"{NAME}.{name}")


@pytest.mark.usefixtures("fast_compiling", "untrained")
def test_the_quick_form_measures_judges_draws_and_goes_on(experiment, tmp_path, capsys):
    main = experiment("__main__").main
    words = ["--quick", "--out", str(tmp_path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "0 of 7 cells" in out and "needle: " in out and "ensemble against Adam, roll-out" in out
    table = json.loads((tmp_path / "table.json").read_text())
    size = table["settings"]
    assert {cell["base"] for cell in table["neighbourhoods"]} == {"random", "mixture", "matched"}
    for cell in table["neighbourhoods"]:
        assert cell["parameters"] == 51_073
        assert [row["n"] for row in cell["rows"]] == [size["per_sigma"]] * 3
        for row in cell["rows"]:
            assert all(gt <= ge for ge, gt in zip(row["ge"], row["gt"], strict=True))
            assert row["ge"] == sorted(row["ge"], reverse=True)
            assert (row["best"] <= 0.5) == (row["ge"][size["margins"].index(0.5)] > 0)
            if row["high"] is not None:
                assert row["best"] <= row["low"] <= row["median"] <= row["high"]
    for row in table["pooled"]:
        assert row["interval_ge"][0] <= row["fraction_ge"] <= row["interval_ge"][1]
    (run,) = table["tunings"]
    budget = 2 * size["num"] * size["train_items"] * 51_073 * 60
    assert run["budget"] == budget
    for name, model in run["models"].items():
        assert len(model["errors"]) == len(size["horizons"]) and len(model["curve"]) == 8
        assert model["flops"] == 0 if name == "base" else 0.8 * budget < model["flops"] <= budget
        assert ("rate" in model) == name.startswith("Adam")
    for name in ("paper", "density", "distance", "horizon"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert "| mixture → line |" in (tmp_path / "table.md").read_text()

    assert main(words) == 0 and "7 of 7 cells" in capsys.readouterr().out
    assert json.loads((tmp_path / "table.json").read_text()) == table
    assert main(["--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "cells of other settings: batch was 4, is now 64; " in error
    assert len(error.splitlines()) == 1
    assert main(["--quick", "--targets", "cube", "--out", str(tmp_path / "new")]) == 2
    assert "targets='cube' is unknown" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_flops_are_those_of_the_compiled_programs(experiment):
    """A loop's body is counted once, so a roll-out of one step is compared."""
    flops, adam = experiment("flops"), experiment("adam")
    params, batch = initialise(jax.random.key(0), "xavier"), 16
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))

    def counted(fn, *arguments):
        return jax.jit(fn).lower(params, *arguments).compile().cost_analysis()["flops"]

    forward = counted(next_value, jnp.ones((batch, 10)))
    assert flops.search(1, batch, parameters, 1) == pytest.approx(forward, rel=0.03)
    for kind in adam.KINDS:
        both = counted(lambda p, x, k=kind: jax.grad(adam.loss)(p, x, k), jnp.ones((batch, 11)))
        assert flops.training(1, batch, parameters, 1) == pytest.approx(both, rel=0.05)
    budget = flops.search(1000, 128, parameters, 60)
    steps = flops.steps_within(budget, 64, parameters, 60, parts=3)
    assert steps == 666 and flops.training(steps, 64, parameters, 60) <= budget
    assert flops.training(steps + 3, 64, parameters, 60) > budget


@pytest.mark.usefixtures("fast_compiling")
def test_adam_trains_on_what_it_says(experiment):
    adam = experiment("adam")
    params = initialise(jax.random.key(1), "xavier")
    points = jnp.asarray(np.random.default_rng(0).normal(size=(4, 13)), jnp.float32)
    windows = [next_value(params, points[:, t : t + 10]) for t in range(3)]
    expected = ((jnp.stack(windows, 1) - points[:, 10:]) ** 2).mean()
    np.testing.assert_allclose(adam.loss(params, points, "next value"), expected, rtol=1e-5)
    rolled = roll_out(params, {"context": points[:, :10], "future": points[:, 10:]})
    expected = ((rolled - points[:, 10:]) ** 2).mean()
    np.testing.assert_allclose(adam.loss(params, points, "roll-out"), expected, rtol=1e-5)

    order = adam.orders(0, 4, 2, 3)
    assert order.shape == (3, 2) and sorted(order[:2].ravel()) == [0, 1, 2, 3]
    rule = optax.chain(optax.clip_by_global_norm(adam.CLIP), optax.adam(1e-2))

    @jax.jit
    def reference(theta):
        state = rule.init(theta)
        for rows in order:
            gradient = jax.grad(adam.loss)(theta, points[rows], "next value")
            updates, state = rule.update(gradient, state, theta)
            theta = optax.apply_updates(theta, updates)
        return theta

    with jax.numpy_dtype_promotion("standard"):
        theta = reference(params)
    found, _ = adam.train(params, adam.begin(params), points, order, np.float32(1e-2), "next value")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, theta)


def row(base, share, sigma=0.002, change=None, n=1000, target="line"):
    from thicket_jax.analysis.intervals import wilson_interval

    interval = wilson_interval(round(share * n), n)
    return {
        **{"base": base, "target": target, "sigma": sigma, "change": change, "margin": 0.5},
        **{"fraction_ge": share, "interval_ge": interval},
    }


def test_density_verdicts_follow_the_rule(experiment):
    judge = experiment("verdict").judge_density

    def said(*rows):
        return {found["claim"]: found["verdict"] for found in judge(rows, 10, 1000)}

    grid = [row("random", 0.0), row("mixture", 0.05), row("matched", 0.009)]
    everything = said(*grid)
    assert [everything[c] for c in ("needle", "thicket", "plateau")] == ["holds"] * 3
    assert everything["denser"] == "not judged: no runs"
    # One sigma with enough good experts is enough against a needle and a plateau.
    more = said(*grid, row("random", 0.01, 0.05), row("matched", 0.01, 0.05))
    assert (more["needle"], more["plateau"]) == ("does not hold", "does not hold")
    # 11 of 1000 are above K/N, but not certainly so.
    assert said(row("mixture", 0.011))["thicket"] == "does not hold"
    two = said(row("random", 0.0), row("random", 0.02, target="sinusoid"))
    assert two["needle"] == "holds for 1 of 2 targets"

    def at(change, mixture, random):
        return [
            row("mixture", mixture, None, change),
            row("random", random, None, change),
        ]

    assert said(*at(0.1, 0.1, 0.0))["denser"] == "holds"
    assert said(*at(0.1, 0.1, 0.0), *at(0.3, 0.0, 0.01))["denser"] == "does not hold"
    assert said(*at(0.1, 0.1, 0.099))["denser"] == "does not hold"


def test_tuning_verdicts_count_runs(experiment):
    verdict = experiment("verdict")
    intervals = ((-2.0, -0.1), (-0.1, 0.1), (0.1, 2.0), (0.2, 0.4))
    runs = [
        {
            "comparisons": [
                {"opponent": "Adam", "horizon": 60, "log_ratio": sum(ends) / 2, "ci95": ends}
            ]
        }
        for ends in intervals
    ]
    (found,) = verdict.judge_tuning(runs)
    assert [found[name] for name in verdict.OUTCOMES] == [1, 1, 2]
    assert found["verdict"] == "does not hold" and found["runs"] == 4
    assert verdict.judge_tuning(runs[:3])[0]["verdict"] == "a draw"
    assert verdict.judge_tuning(runs[:2])[0]["verdict"] == "holds"


def test_a_diverged_roll_out_counts_once(experiment):
    tuning, verdict = experiment("tuning"), experiment("verdict")
    truth = np.zeros((3, 20))
    squared = tuning._squared(np.array([[1.0] * 20, [np.nan] * 20, [1e200] * 20]), truth)
    logs = tuning._logarithms(squared, 20)
    assert logs.tolist() == [0, *[math.log10(verdict.CEILING)] * 2]
    summary = tuning._summary(squared, (20,))
    assert summary["errors"] == [None] and summary["geometric"] == [pytest.approx(1e4)]
    (one,) = tuning._compare({"own": squared, "other": squared * 0.01}, "own", (20,))
    assert one["opponent"] == "other" and one["log_ratio"] == pytest.approx(2 / 3)
