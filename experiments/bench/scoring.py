"""Scoring the 1-D task: ours in float32 and bfloat16, and a PyTorch loop over experts.

Beside the loop, the machine's matrix-product peak, and where the rest of the time goes
(`scoring_parts.py`).
"""

import contextlib
import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.bench import peak, scoring_parts, timing
from experiments.bench.torch_worker import INSTALL, TorchWorker, has_torch, threads_text
from experiments.common import machine
from experiments.common.readme import markdown_table, number
from thicket_jax.errors import RunError
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.metrics import metric
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.selection.ranking import ranking
from thicket_jax.tasks.signals import model as signal_model
from thicket_jax.tasks.signals import task as signals
from thicket_jax.tasks.task import Task

SIGMA, K = 0.05, 10
DTYPES = ("float32", "bfloat16")
LIMITS = {"float32": 1.3, "bfloat16": 2.5}
SHARES = {"float32": 0.8, "bfloat16": 0.5}
"""Of the matrix-product peak of the same dtype."""
_QUICK_SHAPES = ((256, 256, 256), (4096, 128, 128))


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures ms per expert, alternated; then how bfloat16 changes the ten best.

    The experts are drawn around an untrained base, which costs the same as a trained one. Before
    anything is timed, the PyTorch program must find our error of the base: the same work.

    Args:
      quick: a few experts on a few sequences.
      torch_python: an interpreter that has torch.

    Returns:
      JSON values: seconds per expert of every contender with all samples, operations per expert,
      the measured matrix-product peaks and the shares of them, the floor (operations over peak),
      ratios to the PyTorch loop, what takes the time, the change in the ten best, targets.
    """
    items, num, rounds, repeats = (64, 6, 2, 2) if quick else (1024, 60, 7, 10)
    shapes = _QUICK_SHAPES if quick else peak.SHAPES
    block = _block(quick)
    options = {dtype: _options(dtype, "xavier", items) for dtype in DTYPES}
    built = {dtype: signals.build(options[dtype]) for dtype in DTYPES}
    scorers, contenders = {}, {}
    experts = tj.population(jax.random.key(0), num, SIGMA)
    for dtype, task in built.items():
        scorer = Scorer.placed(
            task.problem.score_fn,
            task.problem.params,
            experts.noise,
            task.problem.train,
            Placement(devices.make_mapper(), block),
        )
        scorer.expert_map.prepare(experts)
        scorers[dtype] = scorer
        contenders[f"thicket_jax, {dtype}"] = _timed(scorer, experts)
    with contextlib.ExitStack() as stack:
        worker = None
        if torch_python is not None and has_torch(torch_python):
            worker = stack.enter_context(_worker(torch_python))
            _load(worker, built["float32"])
            worker.choose_threads(machine.cores(), _asked(worker, max(2, num // 10), "float32"))
            for dtype in DTYPES:
                contenders[f"PyTorch loop, {dtype}"] = _asked(worker, num, dtype)
        for contender in contenders.values():  # once, untimed: warm caches, filled pools
            contender()
        samples = timing.alternate(contenders, rounds)
        peaks = {
            f"thicket_jax, {dtype}": peak.peak(dtype, repeats, shapes)["flops"] for dtype in DTYPES
        }
        if worker is not None:
            request = {"shapes": [list(shape) for shape in shapes], "repeats": repeats}
            for dtype in DTYPES:
                found = worker.ask("peak", dtype=dtype, **request)
                peaks[f"PyTorch loop, {dtype}"] = found["flops"]
    rows = _rows(samples, peaks, num, _operations(items))
    plain = rows.get("PyTorch loop, float32")
    for row in rows.values():
        row["ratio"] = None if plain is None else plain["ms"]["median"] / row["ms"]["median"]
    targets = [
        timing.target(
            f"thicket_jax in {dtype}: times as fast as the PyTorch loop in float32",
            rows[f"thicket_jax, {dtype}"]["ratio"],
            LIMITS[dtype],
            at_least=True,
        )
        for dtype in DTYPES
    ]
    targets += [
        timing.target(
            f"thicket_jax in {dtype}: share of the matrix-product peak in {dtype}",
            rows[f"thicket_jax, {dtype}"]["share_of_peak"],
            share,
            at_least=True,
        )
        for dtype, share in SHARES.items()
    ]
    parts = {
        dtype: scoring_parts.measure(
            task.problem.params,
            task.problem.train,
            experts,
            signals.DTYPES[dtype],
            scorers[dtype].expert_map.block(experts),
            rounds,
        )
        for dtype, task in built.items()
    }
    return {
        "sequences": items,
        "steps": signals.FUTURE,
        "experts_per_sample": num,
        "rounds": rounds,
        "operations_per_expert": _operations(items),
        "block_size": {
            dtype: scorer.expert_map.block(experts) for dtype, scorer in scorers.items()
        },
        "compile_seconds": {dtype: s.expert_map.compile_seconds for dtype, s in scorers.items()},
        "torch": None if worker is None else worker.about,
        "missing": None if worker is not None else INSTALL,
        "rows": rows,
        "fastest_possible_ratio": _bounds(rows),
        "parts": parts,
        "top": _change_in_top(quick),
        "targets": targets,
    }


def _options(dtype: str, pretrain: str, items: int) -> signals.Options:
    return signals.Options(
        pretrain=pretrain, target="sinusoid", precision=dtype, train_items=items
    ).resolved()


def _block(quick: bool) -> int | str:
    """As the command line; the quick form saves the compilation that `auto` reads memory from."""
    return 2 if quick else "auto"


def _operations(items: int) -> int:
    """Multiplications and additions of the matrix products of one expert's roll-outs."""
    widths = signal_model.WIDTHS
    products = sum(a * b for a, b in itertools.pairwise(widths))
    return 2 * products * items * signals.FUTURE


def _timed(scorer: Scorer, experts: tj.Population) -> Callable[[], float]:
    return lambda: timing.seconds(lambda: [part.values for _, part in scorer.stream(experts)])


def _asked(worker: TorchWorker, num: int, dtype: str) -> Callable[[], float]:
    return lambda: float(worker.ask("score", num=num, sigma=SIGMA, dtype=dtype)["seconds"])


def _worker(python: str) -> TorchWorker:
    return TorchWorker(python, machine.label() != "cpu")


def _load(worker: TorchWorker, task: Task) -> None:
    """Gives the PyTorch program the same parameters and sequences, and checks that it agrees."""
    arrays = {name: np.asarray(task.problem.train[name]) for name in ("context", "future")}
    for index, layer in enumerate(task.problem.params.values()):
        arrays[f"kernel_{index}"] = np.asarray(layer["kernel"])
        arrays[f"bias_{index}"] = np.asarray(layer["bias"])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "work.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        worker.ask("load", path=str(path))
    (theirs,) = worker.ask("score", num=1, sigma=0.0, dtype="float32")["errors"]
    ours = -float(np.mean(jax.jit(task.problem.score_fn)(task.problem.params, task.problem.train)))
    if not np.isclose(ours, theirs, rtol=1e-3):
        raise RunError(
            f"the base's error is {ours:g} here and {theirs:g} in PyTorch; no comparison"
        )


def _rows(
    samples: dict[str, list[float]], peaks: dict[str, float], num: int, operations: int
) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, values in samples.items():
        ms = timing.summary([1e3 * value / num for value in values])
        rate = operations / (ms["median"] / 1e3)
        rows[name] = {
            "ms": ms,
            "flops": rate,
            "peak_flops": peaks[name],
            "share_of_peak": rate / peaks[name],
            "floor_ms": 1e3 * operations / peaks[name],
        }
    return rows


def _bounds(rows: dict[str, dict[str, Any]]) -> dict[str, float] | None:
    """The ratio to the PyTorch loop that matrix products alone, at their peak, would give."""
    if "PyTorch loop, float32" not in rows:
        return None
    plain = rows["PyTorch loop, float32"]["ms"]["median"]
    return {dtype: plain / rows[f"thicket_jax, {dtype}"]["floor_ms"] for dtype in DTYPES}


def _change_in_top(quick: bool) -> dict[str, Any]:
    """Scores one population around a trained base in both precisions and compares the best K.

    The ensembles of both are graded in float32, so that only the selection differs.
    """
    items, num, k = (16, 8, 2) if quick else (1024, 200, K)
    pretrain = "line" if quick else "mixed"
    values, errors, best = {}, {}, {}
    with tempfile.TemporaryDirectory() as cache:
        built = {
            dtype: signals.build(
                dataclasses.replace(_options(dtype, pretrain, items), cache=cache, test_items=256)
            )
            for dtype in DTYPES
        }
    experts = tj.population(jax.random.key(0), num, signals.Options().resolved().sigma)
    plain = built["float32"].problem
    for dtype, task in built.items():
        scores = tj.score(
            task.problem.score_fn,
            task.problem.params,
            experts,
            task.problem.train,
            keep_items=False,
            block_size=_block(quick),
        )
        order = ranking(scores)[:k]
        values[dtype], best[dtype] = scores.values, order
        predict = tj.ensemble(
            plain.predict_fn,
            plain.params,
            experts[order],
            combine=tj.mean,
            block_size=_block(quick),
        )
        answers = np.asarray(predict(plain.test))
        errors[dtype] = float(metric("mse").per_item(answers, plain.targets).mean())
    both = len(set(best["float32"].tolist()) & set(best["bfloat16"].tolist()))
    return {
        "pretrain": pretrain,
        "experts": num,
        "k": k,
        "in_both": both,
        "best_is_the_same": bool(best["float32"][0] == best["bfloat16"][0]),
        "kendall_tau": kendall(values["float32"], values["bfloat16"]),
        "largest_relative_change": float(
            np.max(np.abs(values["bfloat16"] / values["float32"] - 1))
        ),
        "ensemble_test_mse": errors,
    }


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Kendall's τ-a: concordant minus discordant pairs, over all pairs; O(N²) memory."""
    signs = np.sign(a[:, None] - a[None]) * np.sign(b[:, None] - b[None])
    N = len(a)
    return float(signs.sum() / (N * (N - 1)))


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = [
        [
            name,
            number(row["ms"]["median"]),
            f"{number(row['ms']['min'])} to {number(row['ms']['max'])}",
            number(row["ratio"]),
            number(row["flops"] / 1e9),
            number(row["peak_flops"] / 1e9),
            f"{100 * row['share_of_peak']:.0f} %",
            number(row["floor_ms"]),
        ]
        for name, row in result["rows"].items()
    ]
    head = ["scoring", "ms per expert, median", "spread", "times as fast", "Gflop/s"]
    head += ["matrix-product peak, Gflop/s", "share of it", "floor, ms"]
    top, bounds = result["top"], result["fastest_possible_ratio"]
    mse = top["ensemble_test_mse"]
    parts = [
        f"{result['sequences']} sequences rolled out {result['steps']} steps, "
        f"{result['operations_per_expert'] / 1e9:.2f} G operations per expert; "
        f"{result['experts_per_sample']} experts a sample, {result['rounds']} alternated rounds. "
        "Times as fast: as the PyTorch loop in float32. Peak: the best of the matrix products in "
        "peak.py, by the same library, in the same run. Floor: operations over peak, what an "
        "expert would take if there were nothing but matrix products at their best.",
        markdown_table(head, rows),
    ]
    if bounds:
        parts.append(
            "Scoring at exactly the peak would be "
            + " and ".join(f"{number(bounds[d])} times as fast in {d}" for d in DTYPES)
            + "; no program that makes these products can exceed that."
        )
    parts.append(result["missing"] or threads_text(result["torch"]))
    floors = {d: result["rows"][f"thicket_jax, {d}"]["floor_ms"] for d in DTYPES}
    parts += _parts_text(result["parts"], floors)
    same = "the same" if top["best_is_the_same"] else "another"
    parts.append(
        f"bfloat16 in place of float32, {top['experts']} experts around a base trained on "
        f"{top['pretrain']}: {top['in_both']} of the best {top['k']} are in both, the best expert "
        f"is {same}, Kendall's τ of all scores is {top['kendall_tau']:.3f}, a score changes by at "
        f"most {100 * top['largest_relative_change']:.1f} %; the ensemble's test error (computed "
        f"in float32) is {number(mse['float32'])} with the selection of float32 and "
        f"{number(mse['bfloat16'])} with that of bfloat16."
    )
    return "\n\n".join(parts)


def _parts_text(found: dict[str, dict[str, Any]], floors: dict[str, float]) -> list[str]:
    """Where an expert's time goes, by leaving one part out after the other."""
    names = list(scoring_parts.PARTS)
    rows = []
    for dtype, own in found.items():
        seconds = own["seconds"].values()
        shares = [_percent(own["parts"][name]) for name in names]
        products = 1e3 * own["seconds"][scoring_parts.PRODUCTS]["median"]
        rows.append([dtype, *(number(1e3 * row["median"]) for row in seconds), *shares])
        rows[-1].append(_percent(floors[dtype] / products))
    head = ["dtype", *(f"ms, {name}" for name in next(iter(found.values()))["seconds"])]
    head += [*(f"share: {name}" for name in names), "these products' share of the peak"]
    about = (
        "Where an expert's time goes: the same program with one part after the other left out, in "
        "alternated rounds; a part's share is what leaving it out saved. The matrix products that "
        "are left have the model's shapes and order; the last column compares them with the best "
        "of peak.py."
    )
    return [about, markdown_table(head, rows)]


def _percent(share: float) -> str:
    """Returns a share that may be negative, in percent."""
    return f"{100 * share:.0f} %"
