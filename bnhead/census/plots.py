"""Plots of counts (`census.axes`) as PNG, and with the figures in TensorBoard. No display is needed."""

import io
import math
from collections.abc import Callable, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bnhead.census import axes, keys
from bnhead.census.changes import History
from bnhead.census.counts import Census, Counts
from bnhead.census.figures import meaning_of

_DPI = 220  # twice the pixels in which a page shows a picture
_INK = {  # theme -> paper and ink; "page" is transparent
    "light": ("#ffffff", "#1b1f24"),
    "dark": ("#14171a", "#e6e6e6"),
    "page": ("none", "#7d8590"),
}


class TensorBoardWriter:
    """Writes counts into one TensorBoard directory.

    Args:
        log_dir: the directory, which TensorBoard lists as a separate run.
    """

    def __init__(self, log_dir: str):
        import tensorflow as tf  # writes TensorBoard's file format, whichever backend Keras uses

        self._tf = tf
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def write_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Writes figures as scalars under their keys, with their meanings, except those that are NaN."""
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                if math.isfinite(value):
                    self._tf.summary.scalar(name, value, description=meaning_of(name))
        self._writer.flush()

    def write_plots(self, census: Census, histories: Mapping[str, History], step: int) -> None:
        """Writes the plots of every layer as images."""
        with self._writer.as_default(step=step):
            for layer, counts in census.layers.items():
                for name, png in layer_plots(layer, counts, histories.get(layer)).items():
                    image = self._tf.io.decode_png(png, channels=3)[None]
                    self._tf.summary.image(keys.key(layer, name), image)
        self._writer.flush()

    def write_text(self, name: str, text: str, step: int) -> None:
        """Writes a text."""
        with self._writer.as_default(step=step):
            self._tf.summary.text(name, text)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


def layer_plots(
    layer: str,
    counts: Counts,
    history: History | None = None,
    classes: tuple[str, ...] = (),
    theme: str = "light",
) -> dict[str, bytes]:
    """All plots of one layer; an unknown count has the raster only.

    Args:
        layer: name of the layer.
        counts: its counts.
        history: its activity over several counts.
        classes: the classes' names; empty numbers them.
        theme: "light", "dark", or "page", whose background is transparent and whose ink suits both.

    Returns:
        name -> PNG: "raster" from two counts on, "activity", and, if counted, "classes" and "codeath". Equal
        counts give equal bytes.
    """
    activity = counts.active / max(counts.inputs, 1)
    drawings: dict[str, Callable[[Axes], object]] = {}
    if history is not None and len(history.epochs) > 1:
        drawings["raster"] = lambda ax: axes.plot_raster(history.activity, history.epochs, ax, title=layer)
    if not counts.unknown:
        drawings["activity"] = lambda ax: axes.plot_activity(activity, ax, title=layer)
        if counts.class_active is not None:
            drawings["classes"] = lambda ax: axes.plot_classes(
                counts.class_activity, classes, ax, title=layer
            )
        if (phi := counts.phi) is not None and np.isfinite(np.diagonal(phi)).sum() > 1:
            drawings["codeath"] = lambda ax: axes.plot_codeath(phi, ax, title=layer)
    rows = 0 if counts.class_active is None else len(counts.class_active)
    return {name: as_png(draw, axes.size_of(name, rows), theme) for name, draw in drawings.items()}


def as_png(draw: Callable[[Axes], object], size: tuple[float, float], theme: str = "light") -> bytes:
    """A plot as PNG.

    Args:
        draw: draws on the axes.
        size: width and height in inches.
        theme: as for `layer_plots`.
    """
    paper, ink = _INK[theme]
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style = {**dict.fromkeys(names, ink), "axes.facecolor": paper, "font.size": 9, "axes.titlesize": 10}
    with matplotlib.rc_context(style):
        # without pyplot: no global state, no display
        figure = Figure(figsize=size, dpi=_DPI, facecolor=paper, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        # no version of Matplotlib: equal plots, equal bytes
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
