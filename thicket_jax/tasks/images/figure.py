"""The figure of image classification: test images and what base and ensembles make of them."""

import pathlib
from typing import Any

import numpy as np

from thicket_jax.ensembles.combine import majority_vote, mean_probs
from thicket_jax.reports.figures import COLOURS, canvas

EXHIBITED = 16  # test images that a run keeps for its figure
_COLUMNS = 4
_RIGHT, _WRONG = COLOURS["better"], COLOURS["ensemble"]


def draw(record: Any, folder: pathlib.Path) -> list[tuple[str, str]]:
    """Draws test images with their class and the answers of base, vote and mean probabilities.

    The first sixteen test items, unselected. Beside the majority vote is the share of the experts
    that gave it, beside the mean probabilities' answer its probability.

    Args:
      record: a run record with `answers` [K, B, C] (logits, best expert first), `base_answers`
        [B, C], `targets` [B] and `exhibits["test_images"]` uint8 [n, H, W, channels].
      folder: where the figure is written.

    Returns:
      [(file name, caption)].
    """
    images, targets = np.asarray(record.exhibits["test_images"]), np.asarray(record.targets)
    answers, n = np.asarray(record.answers)[:, : len(images)], len(images)
    base = np.asarray(record.base_answers)[:n].argmax(-1)
    vote, probabilities = np.asarray(majority_vote(answers)), np.asarray(mean_probs(answers))
    shares = (answers.argmax(-1) == vote).mean(0)

    name = "test_items.png"
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-n // _COLUMNS)
    with canvas(7.2, 0.35 + 1.05 * rows, folder / name) as figure:
        grid = figure.add_gridspec(rows, 2 * _COLUMNS, width_ratios=[1, 1.1] * _COLUMNS)
        for index in range(n):
            row, column = divmod(index, _COLUMNS)
            picture = figure.add_subplot(grid[row, 2 * column])
            channels = images.shape[-1]
            shown = images[index, ..., 0] if channels == 1 else images[index]
            picture.imshow(shown, cmap="gray_r" if channels == 1 else None, vmin=0, vmax=255)
            picture.set_axis_off()
            text = figure.add_subplot(grid[row, 2 * column + 1])
            text.set_axis_off()
            truth, mean = targets[index], probabilities[index].argmax()
            lines = [
                (f"class {truth}", COLOURS["truth"]),
                (f"base {base[index]}", _RIGHT if base[index] == truth else _WRONG),
                (
                    f"vote {vote[index]}  {shares[index]:.0%}",
                    _RIGHT if vote[index] == truth else _WRONG,
                ),
                (
                    f"mean {mean}  {probabilities[index, mean]:.2f}",
                    _RIGHT if mean == truth else _WRONG,
                ),
            ]
            for place, (line, colour) in enumerate(lines):
                text.text(0, 0.86 - 0.24 * place, line, color=colour, fontsize=8, va="center")
    K = len(answers)
    caption = (
        f"The first {n} test items as every expert sees them, their class, and the answers of the "
        f"base, of the majority vote of {K} experts (with the share that gave it) and of their "
        "mean probabilities (with the answer's). Green is right, orange is wrong."
    )
    return [(name, caption)]
