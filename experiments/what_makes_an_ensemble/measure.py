"""Every way to make an ensemble, of every size, from one search's answers → one JSON record.

All choices are made on the train items; where a way has a setting (a temperature, a weight), it
is chosen on one half of these with members selected on the other half. The test items are only
looked at to grade what was chosen.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.what_makes_an_ensemble.candidates import Candidates, collect
from experiments.what_makes_an_ensemble.cases import Case
from thicket_jax.analysis import intervals
from thicket_jax.ensembles import combine as combine_rules
from thicket_jax.ensembles import committees

TEMPERATURES = (0.03, 0.1, 0.3, 1.0, math.inf)
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)
TOP, RANDOM, MERGED = "top K", "random", "merged top K"


def measure(
    case: Case, seed: int, cache: str, model: str | None = None, block_size: int | str = "auto"
) -> dict[str, Any]:
    """Searches once and makes all ensembles.

    Returns:
      JSON values. `base` and `single` (the best on train) are in the metric's own unit. `scale`
      turns it into outcomes, higher is better: accuracy as it is, an error in units of the base's
      error on the same items. Each of `rows` has `way`, `k`, `train` and `test` in the metric's
      unit, `gain_train` and `gain_test`, outcome minus the base's, `distinct` members, and
      `minus` → `[difference, standard error, low, high]` of outcomes, paired over the test items,
      for the base, the top K of the same size, and the random control.
    """
    began = time.perf_counter()
    found = collect(case, seed, cache, model, block_size)
    answered = time.perf_counter()
    rows = Bench(found, case, seed).rows()
    grade = found.metric.per_item
    base = {
        "train": float(grade(found.base_train, found.train_targets).mean()),
        "test": float(grade(found.base_test, found.test_targets).mean()),
    }
    single = next(row for row in rows if (row["way"], row["k"]) == (TOP, min(case.ks)))
    return {
        "case": case.name,
        "seed": seed,
        "metric": found.metric.name,
        "higher_is_better": found.metric.higher_is_better,
        "base": base,
        "single": {name: single[name] for name in ("train", "test")},
        "candidates": len(found.train),
        "fresh": len(found.random),
        "failed": list(found.failed),
        "better_than_base": _better(found, base["train"]),
        "perfect": float(np.mean(found.scores >= 1)) if found.metric.bounds else None,
        "rows": rows,
        "seconds": {"answers": answered - began, "ensembles": time.perf_counter() - answered},
    }


def _better(found: Candidates, base: float) -> float:
    """The share of the experts that are better than the base on the train items."""
    sign = 1.0 if found.metric.higher_is_better else -1.0
    return float(np.mean(found.scores > sign * base))


@dataclasses.dataclass
class Bench:
    """The candidates, in every form that a selection or a rule reads.

    A form is the answers as vectors, of which the mean is taken: values, votes or probabilities.
    """

    found: Candidates
    case: Case
    seed: int

    def __post_init__(self) -> None:
        """Makes the products of errors: on the train items, on either half of them, and on test."""
        found = self.found
        rng = np.random.default_rng([self.seed, 0])
        order = rng.permutation(found.train.shape[1])
        self.halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        self.votes = found.metric.name == "accuracy"
        self.plain: Callable[..., Any] = (
            combine_rules.majority_vote if self.votes else combine_rules.mean
        )
        self.form = {"plain": _Form.of(found, False, self.halves)}
        if found.logits:
            self.form["probabilities"] = _Form.of(found, True, self.halves)
        grade = found.metric.per_item
        self.base_test = grade(found.base_test, found.test_targets)
        self.base_train = grade(found.base_train, found.train_targets)
        self.sign = 1.0 if found.metric.higher_is_better else -1.0
        relative = not self.votes
        self.scale = {
            "test": self.base_test.mean() if relative else 1.0,
            "train": self.base_train.mean() if relative else 1.0,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Returns one row for every way and size."""
        self.orders = self._orders()
        rows = []
        for k in self.case.ks:
            random, spread = self._random(k)
            compared = {"base": self.base_test, "random": random}
            top = self._row(TOP, k, np.arange(k), self.plain, compared)
            compared["top"] = top.pop("items")
            rows.append(top)
            for way, picks, rule, weights, form, chosen in self._ways(k):
                row = self._row(way, k, picks, rule, compared, weights, form)
                row.pop("items")
                rows.append(row | ({"chosen": chosen} if chosen is not None else {}))
            rows.append(self._graded(RANDOM, k, random, compared) | {"draws": spread})
            merged = self.found.metric.per_item(self.found.merged[k], self.found.test_targets)
            rows.append(self._graded(MERGED, k, merged, compared))
        return rows

    def _orders(self) -> dict[str, Any]:
        """Selections that are nested in K, made once at the largest size."""
        size, found = max(self.case.ks), self.found
        orders: dict[str, Any] = {
            name: committees.greedy(form.train, size) for name, form in self.form.items()
        }
        first, _ = self.form["plain"].halves
        for weight in WEIGHTS:
            orders["complementary", weight] = committees.complementary(
                self.form["plain"].train, size, weight
            )
            orders["half", weight] = committees.complementary(first, size, weight)
        if self.votes:
            labels, right = _labels(found.train), _right(found)
            orders["accuracy"] = committees.greedy_votes(labels, right, size)
        return orders

    def _ways(self, k: int) -> list[tuple[Any, ...]]:
        """Everything but the plain top K: (way, picks, rule, weights, form, chosen setting)."""
        plain, G = self.plain, self.form["plain"].train
        weight = self._best_weight(k)
        temperature, weights = self._best_temperature(k)
        bagged = committees.bagged_greedy(G, k, seed=self.seed)
        ways: list[tuple[Any, ...]] = [
            ("greedy", self.orders["plain"][:k], plain, None, "plain", None),
            ("bagged greedy", bagged, plain, None, "plain", None),
            (
                "complementary", self.orders["complementary", weight][:k], plain, None, "plain",
                weight,
            ),
            ("weighted top K", np.arange(k), None, weights, "plain", temperature),
        ]  # fmt: skip
        if not self.votes:
            ways.append(
                ("median of top K", np.arange(k), combine_rules.median, None, "plain", None)
            )
        else:
            picks = self.orders["accuracy"][:k]
            ways.append(("greedy on accuracy", picks, plain, None, "plain", None))
        if self.found.logits:
            rule, form = combine_rules.mean_probs, "probabilities"
            ways.append(("mean probs of top K", np.arange(k), rule, None, form, None))
            ways.append(("greedy, mean probs", self.orders[form][:k], rule, None, form, None))
        return ways

    def _best_weight(self, k: int) -> float:
        """What unlikeness is worth: chosen on half the train items, selected on the other."""
        _, other = self.form["plain"].halves
        errors = [
            committees.ambiguity(other, self.orders["half", weight][:k]).error for weight in WEIGHTS
        ]
        return WEIGHTS[int(np.argmin(errors))]

    def _best_temperature(self, k: int) -> tuple[float | None, np.ndarray]:
        """The temperature of the weights, chosen likewise; None stands for equal weights."""
        form = self.form["plain"]
        first, other = form.halves
        members = np.argsort(np.diag(first), kind="stable")[:k]
        errors = [
            committees.ambiguity(other, members, committees.error_weights(first, members, t)).error
            for t in reversed(TEMPERATURES)  # ties go to equal weights
        ]
        best = TEMPERATURES[::-1][int(np.argmin(errors))]
        weights = committees.error_weights(form.train, np.arange(k), best)
        return (best if math.isfinite(best) else None), weights

    def _random(self, k: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The random control's outcomes, [B], the mean over its draws; and how these spread."""
        found, rng = self.found, np.random.default_rng([self.seed, k])
        draws = []
        for _ in range(self.case.draws):
            picks = np.concatenate(
                [
                    rng.permutation(np.flatnonzero(found.random_sigmas == sigma))[:count]
                    for sigma, count in zip(
                        *np.unique(found.sigmas[:k], return_counts=True), strict=True
                    )
                ]
            )
            answer = np.asarray(self.plain(found.random[picks]))
            draws.append(found.metric.per_item(answer, found.test_targets))
        means = np.array(draws).mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        spread = {"count": len(draws), "members": len(picks), "low": float(low)}
        return np.array(draws).mean(0), spread | {"high": float(high)}

    def _row(
        self,
        way: str,
        k: int,
        picks: np.ndarray,
        rule: Callable[..., Any] | None,
        compared: dict[str, np.ndarray],
        weights: np.ndarray | None = None,
        form: str = "plain",
    ) -> dict[str, Any]:
        found = self.found
        items, means = {}, {}
        for part, answers, targets in (
            ("train", found.train, found.train_targets),
            ("test", found.test, found.test_targets),
        ):
            joined = self._joined(answers[picks], rule, weights)
            items[part] = found.metric.per_item(joined, targets)
            means[part] = float(items[part].mean())
        row = self._graded(way, k, items["test"], compared)
        gain = self.sign * (means["train"] - self.base_train.mean()) / self.scale["train"]
        parts = committees.ambiguity(self.form[form].test, picks, weights)
        alike = committees.error_correlation(self.form[form].test, picks)
        return row | {
            "items": items["test"],
            "train": means["train"],
            "gain_train": float(gain),
            "distinct": len(np.unique(picks)),
            "squared": dataclasses.asdict(parts),
            "alike": alike if math.isfinite(alike) else None,
        }

    def _joined(
        self, answers: np.ndarray, rule: Callable[..., Any] | None, weights: np.ndarray | None
    ) -> np.ndarray:
        if weights is None:
            assert rule is not None
            return np.asarray(rule(answers))
        if self.votes:
            return np.asarray(combine_rules.weighted_vote(answers, weights.astype(np.float32)))
        return np.tensordot(weights, answers.astype(np.float64), 1)

    def _graded(
        self, way: str, k: int, items: np.ndarray, compared: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """Outcomes on the test items, and their paired differences to what is compared with."""
        minus = {}
        for name, others in compared.items():
            pair = [self.sign * x / self.scale["test"] for x in (items, others)]
            delta, interval = intervals.paired_difference(*pair)
            minus[name] = _finite([delta, intervals.standard_error(pair[0] - pair[1]), *interval])
        gain = self.sign * (items.mean() - self.base_test.mean()) / self.scale["test"]
        return {
            "way": way, "k": k, "test": float(items.mean()), "gain_test": float(gain),
            "minus": minus,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Form:
    """The products of errors of answers as vectors: train items, each half of them, test items."""

    train: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    test: np.ndarray

    @classmethod
    def of(cls, found: Candidates, probabilities: bool, halves: Sequence[np.ndarray]) -> "_Form":
        train, train_targets = _vectors(found, found.train, found.train_targets, probabilities)
        test, test_targets = _vectors(found, found.test, found.test_targets, probabilities)
        parts = [committees.error_products(train[:, half], train_targets[half]) for half in halves]
        # Halves of equal items: the whole is their mean, weighted by their sizes.
        sizes = [len(half) for half in halves]
        whole = sum(size * part for size, part in zip(sizes, parts, strict=True)) / sum(sizes)
        return cls(whole, (parts[0], parts[1]), committees.error_products(test, test_targets))


def _vectors(
    found: Candidates, answers: np.ndarray, targets: np.ndarray, probabilities: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Answers as vectors [M, B, ...] and what they should be, [B, ...]."""
    if found.metric.name == "mse":
        return answers, targets
    if found.logits:
        classes = answers.shape[-1]
        raised = np.exp(answers - answers.max(-1, keepdims=True))
        shares = raised / raised.sum(-1, keepdims=True)
        votes = committees.one_hot(answers.argmax(-1), classes)
        return (shares if probabilities else votes), committees.one_hot(targets, classes)
    return committees.one_hot(answers, targets.shape[1]), np.nan_to_num(targets)


def _labels(answers: np.ndarray) -> np.ndarray:
    return answers.argmax(-1) if answers.ndim == 3 else answers


def _right(found: Candidates) -> np.ndarray:
    """bool [B, C]: which classes are right answers to the train items."""
    if found.logits:
        return committees.one_hot(found.train_targets, found.train.shape[-1]) > 0
    return np.nan_to_num(found.train_targets) > 0.5


def _finite(values: Sequence[float]) -> list[float | None]:
    return [float(x) if math.isfinite(x) else None for x in values]
