"""What is measured: a task, its options and how large it is; part of what identifies a result."""

import dataclasses

KS = (1, 2, 3, 5, 10, 20, 50, 100, 200)


@dataclasses.dataclass(frozen=True)
class Case:
    """One task under fixed options.

    Attributes:
      name: for tables and figures.
      task: its name in the registry.
      options: of the task, as pairs.
      sigma: of all experts, one: so that selection cannot merely prefer a smaller one.
      num: experts of the search, N.
      pool: the best so many are the candidates of every selection, M.
      fresh: random experts that are in no selection, R.
      train_items, test_items: B of each.
      seeds: seeds 0, 1, ... of experts, data and base.
      ks: sizes of the ensembles.
      draws: random ensembles of each size.
    """

    name: str
    task: str
    options: tuple[tuple[str, str], ...]
    sigma: tuple[float, ...]
    num: int
    pool: int
    fresh: int
    train_items: int
    test_items: int
    seeds: int = 3
    ks: tuple[int, ...] = KS
    draws: int = 20


def _signals(target: str) -> Case:
    options = (("pretrain", "mixed"), ("target", target))
    return Case(
        f"signals, mixed → {target}", "signals", options, (0.002,), 1000, 400, 300, 512, 256
    )


def _digits(condition: str) -> Case:
    return Case(
        f"digits, {condition}", "digits", (("condition", condition),), (0.02,), 1000, 400, 300,
        400, 600,
    )  # fmt: skip


FULL = (
    _digits("rotated"),
    _digits("noisy"),
    _signals("sinusoid"),
    _signals("squarewave"),
    Case("stories", "stories", (), (0.003,), 512, 250, 200, 32, 96),
)
_TINY = {"num": 24, "pool": 12, "fresh": 6, "seeds": 1, "ks": (1, 5), "draws": 3}
QUICK = tuple(
    dataclasses.replace(case, **_TINY, train_items=16, test_items=16)  # type: ignore[arg-type]
    for case in FULL
)
