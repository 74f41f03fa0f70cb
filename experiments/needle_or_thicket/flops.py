"""Floating-point operations of search and of fine-tuning, by one formula each.

P parameters, L tokens of a sequence (here: predicted values), D sequences. A multiplication and an
addition are two operations, so a forward pass takes 2·P for each token and a backward pass twice
as much. What is not a product with a parameter (noise, activations, the optimiser's own step) is
not counted, as in the paper's comparison of methods.
"""


def search(num: int, sequences: int, parameters: int, tokens: int) -> int:
    """Returns the cost of scoring `num` experts: 2·N·D·P·L.

    Source: Gan and Isola, Neural Thickets (arXiv 2603.12228), the comparison at equal FLOPs.
    """
    return 2 * num * sequences * parameters * tokens


def training(steps: int, batch: int, parameters: int, tokens: int) -> int:
    """Returns the cost of so many optimiser steps: 6·steps·batch·P·L."""
    return 6 * steps * batch * parameters * tokens


def steps_within(budget: int, batch: int, parameters: int, tokens: int, parts: int = 1) -> int:
    """Returns the most optimiser steps that a budget pays for, a multiple of `parts`.

    >>> budget = search(num=300, sequences=64, parameters=10, tokens=60)
    >>> steps_within(budget, batch=64, parameters=10, tokens=60)
    100
    """
    steps = budget // training(1, batch, parameters, tokens)
    return steps // parts * parts
