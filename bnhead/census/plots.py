"""Pictures of counts: arrays in, PNG out. Drawn with matplotlib, without a display.

Red is dead, everywhere; grey is unknown; from dark to light a unit is active on more of the inputs.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from bnhead.census.codeath import sorted_order
from bnhead.texts import plotted

DEAD, UNKNOWN = "#e4572e", "#9a9a9a"
_ALMOST_DEAD = 1e-9  # shares below this, that is 0, get the colour of the dead
_INK = {  # theme -> paper and ink; "page" is read on any paper
    "light": ("#ffffff", "#1b1f24"),
    "dark": ("#14171a", "#e6e6e6"),
    "page": ("none", "#7d8590"),
}


def raster(
    activity: Sequence[np.ndarray], epochs: Sequence[int], title: str = "", theme: str = "light"
) -> bytes:
    """A row per unit, a column per count: when each unit died and came back.

    Args:
        activity: one `(units,)` for each count, the share of inputs on which the unit was active; NaN where
            the count was unknown.
        epochs: the counts' epochs.
        title: name of the layer.
        theme: "light", "dark", or "page": transparent, with ink for light and dark paper.

    Returns:
        PNG.
    """
    table = np.stack(activity, axis=1)
    figure, axes = _figure(theme, width=6.4, height=4.2)
    image = _shares(axes, table, aspect="auto")
    axes.set_xlabel("epoch")
    axes.set_ylabel("unit")
    _few_ticks(axes.xaxis, epochs)
    _bar(figure, image, "active on this share of the inputs (red: on none)", theme)
    axes.set_title(plotted(title) or "units over epochs")
    return _png(figure)


def activity_histogram(activity: np.ndarray, title: str = "", theme: str = "light") -> bytes:
    """How many units are active on how much of the inputs; the dead in a bar of their own.

    Args:
        activity: `(units,)` in [0, 1].
        title, theme: as for `raster`.
    """
    activity = np.asarray(activity, float)
    figure, axes = _figure(theme, width=5.2, height=3.2)
    alive = activity[activity > 0]
    heights, _, _ = axes.hist(alive, bins=20, range=(0, 1), color="#3b75af")
    dead = int((activity == 0).sum())
    axes.bar(-0.05, dead, width=0.04, color=DEAD)
    axes.annotate(f"{dead} dead", (-0.05, dead), ha="center", va="bottom", fontsize=9, color=_INK[theme][1])
    axes.set_ylim(0, 1.15 * max(1, dead, heights.max()))
    axes.set_xlim(-0.12, 1.02)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("active on this share of the inputs")
    axes.set_ylabel("units")
    axes.set_title(plotted(title) or "activity of the units")
    return _png(figure)


def class_map(
    activity: np.ndarray, names: Sequence[str] = (), title: str = "", theme: str = "light"
) -> bytes:
    """A row per class, a column per unit, sorted by the class that each unit answers most, the dead last.

    Args:
        activity: `(classes, units)`, share of the class's inputs on which the unit is active; NaN for a class
            without inputs.
        names: the classes' names; empty numbers them.
        title, theme: as for `raster`.
    """
    activity = np.asarray(activity, float)
    filled = np.nan_to_num(activity)
    order = np.lexsort((-filled.max(0), filled.argmax(0), filled.max(0) == 0))
    figure, axes = _figure(theme, width=6.4, height=min(8.0, max(3.2, 1.6 + 0.2 * len(activity))))
    image = _shares(axes, activity[:, order], aspect="auto")
    axes.set_xlabel("unit, by the class it answers most")
    axes.set_ylabel("class")
    _few_ticks(axes.yaxis, list(names) or list(range(len(activity))), most=40)
    _bar(figure, image, "active on this share of the class (red: on none)", theme)
    axes.set_title(plotted(title) or "activity by class")
    return _png(figure)


def codeath_map(phi: np.ndarray, title: str = "", theme: str = "light") -> bytes:
    """The phi matrix, units that are silent together side by side; units that never change are left out.

    Args:
        phi: `(units, units)` in [-1, 1], NaN for units that never change.
        title, theme: as for `raster`.
    """
    order = sorted_order(phi)
    changing = order[~np.isnan(np.diagonal(phi)[order])]
    figure, axes = _figure(theme, width=5.2, height=4.4)
    shown = phi[np.ix_(changing, changing)] if len(changing) else np.full((1, 1), np.nan)
    image = axes.imshow(shown, cmap=_colours("RdBu_r"), vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xlabel(f"{len(changing)} of {len(phi)} units that change, by similarity")
    axes.set_xticks([])
    axes.set_yticks([])
    _bar(figure, image, "phi: silent together (1), in turn (-1)", theme, "neither")
    axes.set_title(plotted(title) or "co-death")
    return _png(figure)


def _figure(theme: str, width: float, height: float):
    paper, ink = _INK[theme]
    figure = Figure(figsize=(width, height), dpi=110, facecolor=paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(paper)
    axes.tick_params(colors=ink, labelsize=8)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
        text.set_fontsize(9)
    for spine in axes.spines.values():
        spine.set_color(ink)
    return figure, axes


def _shares(axes, table: np.ndarray, aspect: str):
    return axes.imshow(
        table, cmap=_colours("cividis"), vmin=_ALMOST_DEAD, vmax=1, aspect=aspect, interpolation="nearest"
    )


def _colours(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(under=DEAD, bad=UNKNOWN)


def _bar(figure, image, label: str, theme: str, extend: str = "min") -> None:
    ink = _INK[theme][1]
    bar = figure.colorbar(image, ax=image.axes, extend=extend)
    bar.set_label(label, color=ink, fontsize=8)
    bar.ax.tick_params(colors=ink, labelsize=8)
    bar.outline.set_edgecolor(ink)


def _few_ticks(axis, labels: Sequence, most: int = 12) -> None:
    step = -(-len(labels) // most)
    axis.set_ticks(range(0, len(labels), step), [plotted(str(label)) for label in labels[::step]])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
