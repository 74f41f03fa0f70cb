"""In how many equal parts something is computed, one after another, so that each holds little."""


def parts(count: int, held: int, most: int) -> int:
    """Returns the fewest equal parts of `count` things of which none holds more than `most`.

    Args:
      count: of what is cut, such as rows or tokens.
      held: bytes that all of them hold together.
      most: bytes of a part; where single things hold more, there are `count` parts.

    Example:
      >>> parts(12, 100, 100), parts(12, 500, 100), parts(12, 5000, 100)
      (1, 6, 12)
    """
    return next(
        n for n in range(1, count + 1) if n == count or (count % n == 0 and held <= n * most)
    )
