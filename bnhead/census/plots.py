"""Plots of counts (`census.axes`) as PNG and SVG, and in TensorBoard with the figures; no display needed."""

import contextlib
import io
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.plugins.image.metadata import create_summary_metadata

from bnhead.census import axes, keys
from bnhead.census.census import Census
from bnhead.census.changes import History
from bnhead.census.counts import Counts
from bnhead.census.figures import meaning_of, tensorboard_tag

_DPI = 220  # twice the pixels in which a page shows a picture
_MARGINS = 0.62, 0.52, 0.12, 0.3  # inches: left, bottom, right, top
_LABEL = 0.58  # inches: the numbers and the label of a colour bar
_INK = {"light": ("#ffffff", "#1b1f24"), "dark": ("#14171a", "#e6e6e6")}  # theme -> paper and ink
_PLACEHOLDER = "#010203"  # a colour that no plot has; a page's ink replaces it
Draw = Callable[[Axes], Axes]
Size = tuple[float, float]


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
        """Writes figures as scalars under their tags, with their meanings, except those that are NaN."""
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                if math.isfinite(value):
                    self._tf.summary.scalar(tensorboard_tag(name), value, description=meaning_of(name))
        self._writer.flush()

    def write_plots(self, census: Census, histories: Mapping[str, History], step: int) -> None:
        """Writes the plots of every layer, and of several layers also both their ends, as images."""
        with self._writer.as_default(step=step):
            if len(census.layers) > 1:
                size = axes.ends_size([*census.layers])
                self._write_image(keys.plot("ends"), as_png(census.plot_ends, size, layout="constrained"))
            for layer, counts in census.layers.items():
                for name, png in layer_plots(layer, counts, histories.get(layer)).items():
                    self._write_image(keys.plot(name, layer), png)
        self._writer.flush()

    def _write_image(self, tag: str, png: bytes) -> None:
        # as `tf.summary.image` does, which would encode the picture again
        width, height = (b"%d" % size for size in struct.unpack(">II", png[16:24]))
        metadata = create_summary_metadata(display_name=None, description=None)
        self._tf.summary.write(tag, [width, height, png], metadata=metadata)

    def write_text(self, name: str, text: str, step: int) -> None:
        """Writes a text."""
        with self._writer.as_default(step=step):
            self._tf.summary.text(name, text)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


def layer_plots(layer: str, counts: Counts, history: History | None = None) -> dict[str, bytes]:
    """All plots of one layer as PNG, by name; see `layer_drawings`. Equal counts give equal bytes."""
    drawings = layer_drawings(counts, history, title=layer)
    return {name: as_png(draw, size) for name, (draw, size) in drawings.items()}


def layer_drawings(
    counts: Counts, history: History | None = None, classes: Sequence[str] = (), title: str = ""
) -> dict[str, tuple[Draw, Size]]:
    """The plots that a layer's counts allow; an unknown count has the raster only.

    Args:
        counts: of the layer.
        history: its activity over several counts.
        classes: the classes' names; empty numbers them.
        title: of each plot; empty leaves the plots' own titles.

    Returns:
        Name of the plot -> a function that draws it on axes, and its size: "raster" from two counts on,
        "activity"; "accumulation" if some units are dead and the inputs have an order; and, if counted,
        "classes" and "codeath".
    """
    activity = counts.active / max(counts.inputs, 1)
    drawings: dict[str, Draw] = {}
    if history is not None and len(history.epochs) > 1:
        drawings["raster"] = lambda ax: axes.plot_raster(history.activity, history.epochs, ax, title=title)
    if not counts.unknown:
        drawings["activity"] = lambda ax: axes.plot_activity(activity, ax, title=title)
        if counts.accumulation is not None and counts.dead.any():
            drawings["accumulation"] = lambda ax: axes.plot_accumulation(
                counts.accumulation, counts.unseen, ax, title=title
            )
        if counts.class_active is not None:
            drawings["classes"] = lambda ax: axes.plot_classes(
                counts.class_activity, classes, ax, title=title
            )
        if (phi := counts.phi) is not None and np.isfinite(np.diagonal(phi)).sum() > 1:
            drawings["codeath"] = lambda ax: axes.plot_codeath(phi, ax, title=title)
    rows = 0 if counts.class_active is None else len(counts.class_active)
    return {name: (draw, axes.size_of(name, rows)) for name, draw in drawings.items()}


def as_png(draw: Draw, size: Size, theme: str = "light", *, layout: str | None = None) -> bytes:
    """A plot as PNG.

    Args:
        draw: draws on the axes.
        size: width and height in inches.
        theme: "light" or "dark".
        layout: Matplotlib's layout engine, for labels of unknown length; None has margins for short labels
            and takes half as long.
    """
    with _figure(draw, size, *_INK[theme], layout) as figure:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        buffer = io.BytesIO()
        # the weakest compression takes a tenth of the time of the best, and a plot is small in any case
        Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def as_svg(draw: Draw, size: Size) -> str:
    """A plot without its title as an SVG element inside HTML, transparent and in the ink of the page.

    Args:
        draw, size: as of `as_png`.
    """
    buffer = io.BytesIO()
    with _figure(lambda ax: draw(ax).set_title(""), size, "none", _PLACEHOLDER, "constrained") as figure:
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue().decode()
    # inside HTML a style would be that of the whole page, the font is the page's, and names of groups repeat
    outside = r' xmlns(:\w+)?="[^"]*"|(?<=<g) id="[^"]*"|<style.*?</style>|font-family: [^;"]*; '
    element = re.sub(outside, "", text[text.index("<svg") :], flags=re.DOTALL)
    return element.replace(_PLACEHOLDER, "currentColor").strip()


@contextlib.contextmanager
def _figure(draw: Draw, size: Size, paper: str, ink: str, layout: str | None) -> Iterator[Figure]:
    """A figure with the plot, without pyplot: no global state, no display."""
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    sizes = {"font.size": 9, "axes.titlesize": 10}  # points; 9 are 12 pixels of a page
    # text, not outlines; equal plots, equal bytes
    letters = {"svg.fonttype": "none", "svg.hashsalt": "bnhead"}
    with matplotlib.rc_context({**dict.fromkeys(names, ink), "axes.facecolor": paper, **sizes, **letters}):
        figure = Figure(figsize=size, dpi=_DPI, facecolor=paper, layout=layout)
        draw(figure.add_subplot())
        if layout is None:
            (width, height), (left, bottom, right, top) = size, _MARGINS
            right += (len(figure.axes) - 1) * _LABEL
            figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
            for ax in figure.axes:  # a place for the title is not looked for, which takes a third of drawing
                ax.set_title(ax.get_title(), y=1.0)
        yield figure
