"""The figure of the 1-D experiment: roll-outs beside the truth, from a run's record alone."""

import pathlib
from typing import Any

import numpy as np

from thicket_jax.tasks.signals.families import grid

# The colours of Okabe and Ito, which the colour-blind tell apart; greys for what is only context.
_BASE, _TOP, _ENSEMBLE = "#0072B2", "#E69F00", "#D55E00"
_TRUTH, _RANDOM = "#000000", "#9A9A9A"
_PANELS, _RANDOMS, _TOPS = 4, 10, 3
_DPI = 150


def draw(record: Any, folder: pathlib.Path) -> list[tuple[str, str]]:
    """Draws roll-outs of base, random experts, top experts and ensemble beside the truth.

    The first four test sequences that differ, unselected. A panel shows the range of the truth, so
    a roll-out that diverges leaves it. The ensemble is the mean of all of `answers`.

    Args:
      record: a run record with `answers` [K, B, T] (best first), `base_answers` [B, T],
        `random_answers` [R, B, T], `targets` [B, T] and `exhibits["test_context"]` [B, C].
      folder: where the figure is written.

    Returns:
      [(file name, caption)].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    context, targets = np.asarray(record.exhibits["test_context"]), np.asarray(record.targets)
    answers, base = np.asarray(record.answers), np.asarray(record.base_answers)
    randoms = np.asarray(record.random_answers).reshape(-1, *base.shape)
    truth = np.concatenate([context, targets], 1)
    rows = np.sort(np.unique(truth, axis=0, return_index=True)[1])[:_PANELS]

    height = 1.9 * -(-len(rows) // 2) + 0.9
    figure = Figure(figsize=(7.2, height), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    shape = (-(-len(rows) // 2), min(len(rows), 2))
    panels = figure.subplots(*shape, sharex=True, squeeze=False)
    for panel in panels.flat[len(rows) :]:
        panel.set_axis_off()
    for panel, row in zip(panels.flat, rows, strict=False):
        curves = (base[row], answers[:, row], randoms[:_RANDOMS, row])
        _draw_panel(panel, truth[row], context.shape[1], *curves)
    for panel in panels[-1]:
        panel.set_xlabel("x", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel("y", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8, frameon=False)

    name = "roll_outs.png"
    folder.mkdir(parents=True, exist_ok=True)
    canvas.draw()
    # A palette of 128 colours shows no difference and takes a third of the bytes.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    image.quantize(128).save(folder / name, optimize=True, dpi=(_DPI, _DPI))
    which = "the one test signal" if len(rows) == 1 else f"the first {len(rows)} test sequences"
    caption = (
        f"Roll-outs on {which}: a model sees the shaded context and continues it for "
        f"{targets.shape[1]} steps. The axes follow the truth, so a roll-out that diverges leaves "
        "its panel."
    )
    return [(name, caption)]


def _draw_panel(
    panel: Any,
    truth: np.ndarray,
    start: int,
    base: np.ndarray,
    answers: np.ndarray,
    randoms: np.ndarray,
) -> None:
    """One sequence: truth [C + T], base [T], answers [K, T] and randoms [R, T]; C is `start`."""
    x = grid(len(truth))
    ensemble = answers.mean(0)

    def line(values: np.ndarray, label: str, **style: Any) -> None:
        # From the last point of the context, which is where a roll-out starts.
        curve = np.concatenate([truth[start - 1 : start], values])
        curve = np.where(np.isfinite(curve), curve, np.nan)
        panel.plot(x[start - 1 :], curve, label=label, **style)

    panel.axvspan(x[0], x[start - 1], color=_TRUTH, alpha=0.07, lw=0, label="context")
    panel.plot(x, truth, color=_TRUTH, lw=2.0, label="truth")
    for index, values in enumerate(randoms):
        line(values, "" if index else "random experts", color=_RANDOM, lw=0.6, alpha=0.7)
    line(base, "base", color=_BASE, lw=1.2, ls=(0, (4, 1.5)))
    for index, values in enumerate(answers[:_TOPS]):
        line(values, "" if index else "top experts", color=_TOP, lw=0.9)
    line(ensemble, f"ensemble of {len(answers)}", color=_ENSEMBLE, lw=1.5)

    low, high = truth.min(), truth.max()
    margin = 0.35 * max(high - low, 0.2)
    panel.set(xlim=(x[0], x[-1]), ylim=(low - margin, high + margin))
    errors = [np.mean((values - truth[start:]) ** 2) for values in (base, ensemble)]
    title = f"MSE: base {errors[0]:.2g}, ensemble {errors[1]:.2g}"
    panel.set_title(title, fontsize=8, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
