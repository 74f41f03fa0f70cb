"""How many experts are scored on how many items, round by round. Numbers alone: no device, no data.

Shapes: N experts, B items, K kept. Items come in pieces of one size, so that rounds of any length
run by one compiled program; a round ends after whole pieces, the last one after item B.
"""

import dataclasses
import math

from thicket_jax.errors import ArgumentError, check_count

ROUNDS = 3  # of halving: where each has an equal part of the budget, more find no more
_RACE_ROUNDS = 12  # of a race, at least, where there are so many items


@dataclasses.dataclass(frozen=True)
class Round:
    """One round: so many experts, on the items from `start` to `stop` of their common order.

    Attributes:
      experts: that take part.
      start: items that each of them was scored on before.
      stop: items that each of them was scored on after it.
    """

    experts: int
    start: int
    stop: int

    @property
    def evaluations(self) -> int:
        """Outcomes that the round computes, experts × items."""
        return self.experts * (self.stop - self.start)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Rounds, and the items in a piece."""

    piece: int
    rounds: tuple[Round, ...]

    @property
    def evaluations(self) -> int:
        """Outcomes that all rounds compute."""
        return sum(one.evaluations for one in self.rounds)


def halving_schedule(num: int, items: int, k: int, budget: float, rounds: int = ROUNDS) -> Schedule:
    """Returns rounds that together compute at most the share `budget` of all N·B outcomes.

    Each round has an equal part of the budget, as in sequential halving (Karnin, Koren and Somekh,
    ICML 2013). The first scores all N; from there to all B the numbers of items are in geometric
    progression, and a round has as many experts as its part pays for, K at least. Where K experts
    on all items take more than a part, the first round has fewer items, or there are fewer rounds;
    rounds between which nobody would be dropped are one.

    Args:
      num: experts, N.
      items: items, B.
      k: experts that must be scored on all items at least, K.
      budget: share of the N·B outcomes, above 0 and at most 1; 1 is every expert on every item.
      rounds: rounds at most.

    Raises:
      ArgumentError: a bad argument, or a budget that does not pay for every expert on one item
        and K on all.

    Example:
      >>> [(r.experts, r.stop) for r in halving_schedule(1000, 1024, 10, 0.1).rounds]
      [(1000, 32), (220, 192), (42, 1024)]
    """
    N, B, K = check_count("num", num), check_count("items", items), check_count("k", k)
    check_count("rounds", rounds)
    if K > N:
        raise ArgumentError(f"k={K} is larger than the population of {N}; lower k or raise num")
    total = int(check_share("budget", budget) * N * B + 1e-6)
    if total == N * B:
        return Schedule(B, (Round(N, 0, B),))
    for count in range(min(rounds, B), 1, -1):
        for first in range(max(1, total // (count * N)), 0, -1):
            found = _fitted(N, B, K, total, count, piece_size(B, first))
            if found is not None:
                return found
    least = (N + K * (B - 1)) / (N * B)
    advice = f"use {_up(least):g} or more, a smaller k, or more items"
    if rounds == 1:
        least, advice = 1, "use 1, or more rounds"
    raise ArgumentError(
        f"budget={budget} is too small for {N} experts, {B} items and k={K}: every expert on one "
        f"item and {K} on all take {least:.3g} of the outcomes; {advice}"
    )


def _fitted(N: int, B: int, K: int, total: int, count: int, piece: int) -> Schedule | None:
    """The rounds whose first has one piece of items; None if `total` does not pay for them."""
    if -(-B // piece) < count:
        return None
    chosen, left = [Round(N, 0, piece)], total - N * piece
    for number in range(1, count):
        last = chosen[-1]
        stop = B
        if number < count - 1:
            wanted = piece * (B / piece) ** (number / (count - 1))
            most = B - (count - 1 - number) * piece
            stop = min(max(round(wanted / piece), last.stop // piece + 1) * piece, most)
            stop = stop // piece * piece
        if stop <= last.stop:
            return None
        part = left // (count - number) // (stop - last.stop)
        chosen.append(Round(min(last.experts, max(K, part)), last.stop, stop))
        left -= chosen[-1].evaluations
        if chosen[-1].experts == last.experts:  # nobody would be dropped in between
            chosen[-2:] = [Round(last.experts, last.start, stop)]
    return Schedule(piece, tuple(chosen)) if left >= 0 else None


def race_piece(items: int) -> int:
    """Returns the items of one round of a race: a twelfth of them or somewhat less, at least one.

    >>> [race_piece(B) for B in (1024, 400, 32, 5)]
    [64, 25, 2, 1]
    """
    return piece_size(items, -(-items // _RACE_ROUNDS))


def piece_size(items: int, most: int) -> int:
    """Returns how many items make a piece: at most `most`, more than half of it.

    Of these sizes the one that leaves the last piece fullest, as what it lacks is filled up.

    >>> [piece_size(B, m) for B, m in ((1024, 34), (400, 34), (7, 3))]
    [32, 25, 2]
    """
    sizes = range(most // 2 + 1, most + 1)
    return min(sizes, key=lambda size: (-items % size, -size))


def check_share(name: str, value: float) -> float:
    """Returns a share as a float; anything but a number above 0 and at most 1 is an error."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:
        raise ArgumentError(f"{name}={value!r} must be above 0, and 1 at most")
    return float(value)


def _up(share: float) -> float:
    """A share rounded up to two digits."""
    step = 10.0 ** (math.floor(math.log10(share)) - 1)
    return min(1.0, math.ceil(share / step - 1e-9) * step)
