"""Arrays of text as numeric arrays: what checkpoints and npz files can hold, and back."""

import itertools
from collections.abc import Mapping

import numpy as np

_HIDDEN = [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_PRINTABLE = dict.fromkeys([*_HIDDEN, *range(0xD800, 0xE000)], "\ufffd") | {
    code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"
}
PARTS = ("codes", "bytes", "ends")


def printable(text: str) -> str:
    """Returns text of a model as a terminal or a page may show it, one character for each.

    Control characters have their pictures; what turns the direction of writing, and halves of
    surrogate pairs, are replaced. Line feeds and tabs stay.

    Example:
      >>> printable("a\x1b[31m")
      'a␛[31m'
    """
    return text.translate(_PRINTABLE)


def pack(texts: np.ndarray) -> dict[str, np.ndarray]:
    """Returns an object array of `str` or None, of any shape, as three numeric arrays.

    Every different text is stored once: answers repeat a lot between experts. No array is ever
    empty, as Orbax saves none that is.

    Returns:
      `codes`: int32 of the same shape, each text's place in the vocabulary; −1 for None.
      `bytes`: uint8, the vocabulary in UTF-8, one text after another.
      `ends`: int64 [1 + number of texts]: text i lies between ends[i] and ends[i + 1].

    Example:
      >>> packed = pack(np.array([["12", None], ["7", "12"]], object))
      >>> packed["codes"].tolist()
      [[0, -1], [1, 0]]
      >>> unpack(packed).tolist()
      [['12', None], ['7', '12']]
    """
    vocabulary: dict[str, int] = {}
    codes = np.fromiter(
        (-1 if x is None else vocabulary.setdefault(x, len(vocabulary)) for x in texts.flat),
        np.int32,
        texts.size,
    )
    # A grader's text may hold half of a surrogate pair, which plain UTF-8 refuses.
    words = [text.encode("utf-8", "surrogatepass") for text in vocabulary]
    return {
        "codes": codes.reshape(texts.shape),
        "bytes": np.frombuffer(b"".join(words) or b"\0", np.uint8),
        "ends": np.cumsum([0, *map(len, words)], dtype=np.int64),
    }


def unpack(packed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the object array that `pack` was given.

    Raises:
      ValueError: the three arrays do not belong together.
    """
    codes, ends = packed["codes"], packed["ends"]
    data = packed["bytes"].tobytes()
    if not ends.size or ends[0] != 0 or (np.diff(ends) < 0).any() or ends[-1] > len(data):
        raise ValueError("the ends of its texts are not in order")
    if codes.size and not -1 <= codes.min() <= codes.max() < len(ends) - 1:
        raise ValueError(f"a code is not -1 to {len(ends) - 2}")
    vocabulary = np.empty(len(ends), object)  # the last place, which −1 points to, stays None
    for i, (start, stop) in enumerate(itertools.pairwise(ends.tolist())):
        vocabulary[i] = data[start:stop].decode("utf-8", "surrogatepass")
    return vocabulary[codes]
