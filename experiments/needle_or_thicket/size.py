"""What is measured and how large: the names and the numbers that identify a result."""

import dataclasses

TARGETS = ("line", "sinusoid", "squarewave")
BASES = ("random", "mixture", "matched")
"""Xavier initialisation; trained on the mixture of families; trained on the target's family."""
PAPER_SIGMA = {"random": 0.05, "mixture": 0.002, "matched": 0.002}


@dataclasses.dataclass(frozen=True)
class Size:
    """How large every part is.

    Attributes:
      sigmas: of the neighbourhood's grid.
      changes: root mean square changes of the next value at which bases are compared as well.
      per_sigma: experts at each sigma of the neighbourhood.
      margins: relative: an expert counts at m when its error is at most 1 − m of the base's.
      num: experts of a search that fine-tuning is compared with, N.
      k: of which so many are kept, K.
      train_items: sequences that score experts and train Adam, D.
      test_items: sequences on which everything is compared.
      batch: sequences in a step of Adam.
      learning_rates: that Adam tries.
      horizons: steps of roll-out after which errors are compared; the first is trained on.
      shown: items that choose the experts whose roll-outs are drawn.
    """

    sigmas: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 0.016, 0.03, 0.05, 0.1, 0.2)
    changes: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    per_sigma: int = 100
    margins: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    num: int = 1000
    k: int = 10
    train_items: int = 128
    test_items: int = 256
    batch: int = 64
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    horizons: tuple[int, ...] = (60, 120, 240)
    shown: int = 32


QUICK = Size(
    sigmas=(2e-3, 0.05),
    changes=(0.1,),
    per_sigma=8,
    num=24,
    k=3,
    train_items=8,
    test_items=6,
    batch=4,
    horizons=(60, 80),
    shown=8,
)
