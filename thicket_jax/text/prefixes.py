"""What all prompts of a task begin with: a system prompt, instructions, worked examples."""

from collections.abc import Sequence

import numpy as np

_WORTH = 64  # tokens, below which a part of its own in every attention costs what it saves


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens all prompts begin with; 0 where that is not worth a pass of its own.

    Every prompt keeps at least one token behind it.

    Example:
      >>> shared_prefix([[7] * 80 + [1, 2], [7] * 80 + [3]])
      80
      >>> shared_prefix([[7] * 80, [7] * 80]), shared_prefix([[7, 1], [7, 2]])
      (79, 0)
    """
    most = min(map(len, prompts)) - 1
    heads = np.asarray([prompt[:most] for prompt in prompts]).reshape(len(prompts), most)
    alike = (heads == heads[:1]).all(0)
    count = most if alike.all() else int(alike.argmin())
    return count if count >= _WORTH else 0
