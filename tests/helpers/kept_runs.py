"""Records of runs whose kept experts are better than others on the test items."""

import numpy as np
from logged_runs import logged_run


def kept_run(seed=5, metric="accuracy", K=6, B=40, N=30, **fields):
    """A run whose kept experts are right in .8 of the test items, and random ones in .5."""
    rng = np.random.default_rng(seed)
    train = rng.random((N, 20))
    train[3] = np.nan
    targets = rng.integers(0, 3, B)

    def answers(rows, share):
        wrong = (targets + rng.integers(1, 3, (rows, B))) % 3
        return np.where(rng.random((rows, B)) < share, targets, wrong)

    values = {
        "targets": targets,
        "answers": answers(K, 0.8),
        "random_answers": answers(K, 0.5),
        "base_answers": answers(1, 0.5)[0],
        "strings": np.full((K, B), "x", object),  # the random ones are at the kept ones' sigmas
    }
    return logged_run(train, np.tile([0.1, 0.2, 0.4], N // 3), metric=metric, **(values | fields))
