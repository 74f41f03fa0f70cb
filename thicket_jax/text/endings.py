"""Generated tokens → texts: where an answer ends, by its tokens or by its text.

Shapes: n experts, B items, T generated tokens.
"""

from collections.abc import Collection, Sequence

import numpy as np

from thicket_jax.text.tokenizer import Tokenizer


def texts(
    tokenizer: Tokenizer, tokens: np.ndarray, eos_ids: Sequence[int], stops: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what was generated as text, and how many tokens it took.

    Rows of equal tokens are decoded once: many experts say the same. Stop strings are found in the
    decoded text, however the tokenizer wrote it.

    Args:
      tokenizer: the checkpoint's.
      tokens: int [n, B, T]; what follows a row's first end token does not count.
      eos_ids: the end tokens.
      stops: a text ends before the one of these that is complete first.

    Returns:
      The texts, object (str) [n, B], without special tokens; the numbers of generated tokens, the
      end token or the stop string included, int32 [n, B].
    """
    tokens = np.asarray(tokens)
    n, items, width = tokens.shape
    ends = np.isin(tokens, np.asarray(eos_ids, tokens.dtype))
    kept = np.where(ends.any(-1), ends.argmax(-1), width)
    found: dict[bytes, int] = {}
    different: list[list[int]] = []
    which = np.empty(n * items, np.int64)
    for index, (row, length) in enumerate(
        zip(tokens.reshape(-1, width), kept.reshape(-1), strict=True)
    ):
        key = row[:length].tobytes()
        if key not in found:
            found[key] = len(different)
            different.append(row[:length].tolist())
        which[index] = found[key]
    whole = tokenizer.decode_many(different)
    decoded = np.empty(len(different), object)
    decoded[:] = whole
    lengths = np.minimum(kept + 1, width).astype(np.int32)
    places = {i: place for i, text in enumerate(whole) if (place := stop_place(text, stops))}
    if places:
        decoded[list(places)] = [whole[i][:begin] for i, (begin, _) in places.items()]
        reach = [end for _, end in places.values()]
        short = np.zeros(len(different), np.int32)
        short[list(places)] = _taken(tokenizer, [different[i] for i in places], reach, stops)
        taken = short[which].reshape(n, items)
        lengths = np.where(taken > 0, taken, lengths)
    return decoded[which].reshape(n, items), lengths


def stop_place(text: str, stops: Sequence[str]) -> tuple[int, int] | None:
    """Returns begin and end of the stop string that is complete first in a text; None for none.

    So it does not matter what comes after it. Of two that end together it is the longer one.

    Example:
      >>> stop_place("12\\n\\nQuestion: 3", ["\\nQuestion:", "\\n\\n"])
      (2, 4)
    """
    found = [(text.find(stop), len(stop)) for stop in stops]
    ends = [(begin + length, begin) for begin, length in found if begin >= 0]
    return min(ends)[::-1] if ends else None


def _taken(
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    reach: Sequence[int],
    stops: Sequence[str],
) -> np.ndarray:
    """How many of its tokens each row needs until a stop string is complete in its text.

    By bisection over beginnings of the rows, which are decoded side by side. The places that are
    tried first are where the texts of single tokens, in a line, would have it: nearly always right.

    Args:
      tokenizer: the checkpoint's.
      rows: tokens.
      reach: the end of the stop string in each row's text.
      stops: the stop strings.
    """
    low, high = np.zeros(len(rows), int), np.array([len(row) for row in rows])
    sizes = _sizes(tokenizer, {token for row in rows for token in row})
    guess = np.array(
        [
            1 + int(np.searchsorted(np.cumsum([sizes[token] for token in row]), end))
            for row, end in zip(rows, reach, strict=True)
        ]
    )
    for tries in range(2 + int(high.max()).bit_length()):
        unsure = np.flatnonzero(high - low > 1)
        if not len(unsure):
            break
        probe = guess - tries if tries < 2 else (low + high) // 2
        probe = np.clip(probe, low + 1, high - 1)[unsure]
        pairs = zip(unsure.tolist(), probe.tolist(), strict=True)
        begun = tokenizer.decode_many([rows[i][:p] for i, p in pairs])
        complete = np.array([stop_place(text, stops) is not None for text in begun])
        high[unsure] = np.where(complete, probe, high[unsure])
        low[unsure] = np.where(complete, low[unsure], probe)
    return high


def _sizes(tokenizer: Tokenizer, tokens: Collection[int]) -> dict[int, int]:
    """Characters that each token adds to a text; behind itself, as a first one may lose a space."""
    known = sorted(tokens)
    once = tokenizer.decode_many([[token] for token in known])
    twice = tokenizer.decode_many([[token, token] for token in known])
    return {token: len(b) - len(a) for token, a, b in zip(known, once, twice, strict=True)}
