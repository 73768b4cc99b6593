"""Plots of counts: as PNG, and with the figures in TensorBoard.

The plots take arrays and are drawn by matplotlib without a display. Red marks dead units, grey unknown ones;
from dark to light, a unit is active on more of the inputs.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from bnhead.census import keys
from bnhead.census.changes import History
from bnhead.census.codeath import sorted_order
from bnhead.census.counts import Census, Counts
from bnhead.census.figures import meaning_of
from bnhead.texts import plotted

DEAD, UNKNOWN = "#e4572e", "#9a9a9a"
_ALMOST_DEAD = 1e-9  # the colour map starts here: a share of 0 lies below it and gets the colour of the dead
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
        """Writes figures as scalars under their keys, with their meanings."""
        with self._writer.as_default(step=step):
            for name, value in figures.items():
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
        theme: as for `raster`.

    Returns:
        name -> PNG: "raster" from two counts on, "activity", and, if counted, "classes" and "codeath".
    """
    plots = {}
    if history is not None and len(history.epochs) > 1:
        plots["raster"] = raster(history.activity, history.epochs, layer, theme)
    if counts.unknown:
        return plots
    plots["activity"] = activity_histogram(counts.active / counts.inputs, layer, theme)
    if counts.class_active is not None:
        plots["classes"] = class_map(counts.class_activity, classes, layer, theme)
    if counts.phi is not None and np.isfinite(np.diagonal(counts.phi)).sum() > 1:
        plots["codeath"] = codeath_map(counts.phi, layer, theme)
    return plots


def raster(
    activity: Sequence[np.ndarray], epochs: Sequence[int], title: str = "", theme: str = "light"
) -> bytes:
    """When each unit died and came back: a row per unit, a column per count.

    Args:
        activity: one `(units,)` per count, the share of inputs on which the unit was active; NaN if the count
            was unknown.
        epochs: the counts' epochs.
        title: name of the layer.
        theme: "light", "dark", or "page", whose background is transparent and whose ink suits both.

    Returns:
        PNG.
    """
    figure, axes = _blank_figure(theme, width=6.4, height=4.2)
    image = _show_shares(axes, np.stack(activity, axis=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("unit")
    _label_some(axes.xaxis, epochs)
    _add_colorbar(figure, image, "active on this share of the inputs (red: on none)", theme)
    axes.set_title(plotted(title) or "units over epochs")
    return _as_png(figure)


def activity_histogram(activity: np.ndarray, title: str = "", theme: str = "light") -> bytes:
    """Number of units by the share of inputs on which they are active; dead units have a separate bar.

    Args:
        activity: `(units,)` in [0, 1].
        title, theme: as for `raster`.
    """
    activity = np.asarray(activity, float)
    figure, axes = _blank_figure(theme, width=5.2, height=3.2)
    heights, _, _ = axes.hist(activity[activity > 0], bins=20, range=(0, 1), color="#3b75af")
    dead = int((activity == 0).sum())
    axes.bar(-0.05, dead, width=0.04, color=DEAD)
    axes.annotate(f"{dead} dead", (-0.05, dead), ha="center", va="bottom", fontsize=9, color=_INK[theme][1])
    axes.set_ylim(0, 1.15 * max(1, dead, heights.max()))
    axes.set_xlim(-0.12, 1.02)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("active on this share of the inputs")
    axes.set_ylabel("units")
    axes.set_title(plotted(title) or "activity of the units")
    return _as_png(figure)


def class_map(
    activity: np.ndarray, names: Sequence[str] = (), title: str = "", theme: str = "light"
) -> bytes:
    """Activity by class: a row per class, a column per unit.

    Units are sorted by the class on which they are most active, dead units last.

    Args:
        activity: `(classes, units)`, share of the class's inputs on which the unit is active; NaN for a class
            without inputs.
        names: the classes' names; empty numbers them.
        title, theme: as for `raster`.
    """
    activity = np.asarray(activity, float)
    filled = np.nan_to_num(activity)
    order = np.lexsort((-filled.max(0), filled.argmax(0), filled.max(0) == 0))
    figure, axes = _blank_figure(theme, width=6.4, height=min(8.0, max(3.2, 1.6 + 0.2 * len(activity))))
    image = _show_shares(axes, activity[:, order])
    axes.set_xlabel("unit, by the class it answers most")
    axes.set_ylabel("class")
    _label_some(axes.yaxis, list(names) or list(range(len(activity))), most=40)
    _add_colorbar(figure, image, "active on this share of the class (red: on none)", theme)
    axes.set_title(plotted(title) or "activity by class")
    return _as_png(figure)


def codeath_map(phi: np.ndarray, title: str = "", theme: str = "light") -> bytes:
    """The phi matrix without units that never change; units that are silent together are adjacent.

    Args:
        phi: `(units, units)` in [-1, 1], NaN for units that never change.
        title, theme: as for `raster`.
    """
    order = sorted_order(phi)
    changing = order[~np.isnan(np.diagonal(phi)[order])]
    figure, axes = _blank_figure(theme, width=5.2, height=4.4)
    matrix = phi[np.ix_(changing, changing)] if len(changing) else np.full((1, 1), np.nan)
    image = axes.imshow(matrix, cmap=_colormap("RdBu_r"), vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xlabel(f"{len(changing)} of {len(phi)} units that change, by similarity")
    axes.set_xticks([])
    axes.set_yticks([])
    _add_colorbar(figure, image, "phi: silent together (1), in turn (-1)", theme, "neither")
    axes.set_title(plotted(title) or "co-death")
    return _as_png(figure)


def _blank_figure(theme: str, width: float, height: float):
    paper, ink = _INK[theme]
    figure = Figure(figsize=(width, height), dpi=110, facecolor=paper, layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no global state, no display
    axes = figure.add_subplot()
    axes.set_facecolor(paper)
    axes.tick_params(colors=ink, labelsize=8)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
        text.set_fontsize(9)
    for spine in axes.spines.values():
        spine.set_color(ink)
    return figure, axes


def _show_shares(axes, table: np.ndarray):
    colors = _colormap("cividis")
    return axes.imshow(table, cmap=colors, vmin=_ALMOST_DEAD, vmax=1, aspect="auto", interpolation="nearest")


def _colormap(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(under=DEAD, bad=UNKNOWN)


def _add_colorbar(figure, image, label: str, theme: str, extend: str = "min") -> None:
    ink = _INK[theme][1]
    bar = figure.colorbar(image, ax=image.axes, extend=extend)
    bar.set_label(label, color=ink, fontsize=8)
    bar.ax.tick_params(colors=ink, labelsize=8)
    bar.outline.set_edgecolor(ink)


def _label_some(axis, labels: Sequence, most: int = 12) -> None:
    """Labels every so-many-th tick, at most `most` of them."""
    step = -(-len(labels) // most)
    axis.set_ticks(range(0, len(labels), step), [plotted(str(label)) for label in labels[::step]])


def _as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version: equal plots, equal bytes
    return buffer.getvalue()
