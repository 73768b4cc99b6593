"""Plots of counts on Matplotlib axes. Each function draws on `ax`, or on a new figure, and returns the axes.

Red marks dead units, grey unknown ones; from dark to light, a unit is active on more of the inputs. Ink and
sizes are Matplotlib's, as the user has set them.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bnhead import notebook
from bnhead.census.accumulation import Accumulation, Unseen
from bnhead.census.codeath import sorted_order
from bnhead.texts import plotted, shortened

DEAD, ALWAYS_ON, UNKNOWN = notebook.RED, notebook.BLUE, "#9a9a9a"
_BETWEEN = notebook.GREY + "38"  # a low opacity is readable on white and on black paper
_NAMED = 24  # so many layers have their names below the bars
_LEGEND = ("dead", "sometimes active", "always on", "silent per input", "unknown")
_SIZES = {
    "activity": (4.2, 2.9),
    "accumulation": (4.2, 2.9),
    "classes": (4.8, 3.4),
    "raster": (4.8, 3.4),
    "codeath": (4.2, 3.4),
}
_ALMOST_DEAD = 1e-9  # the colour map starts here: a share of 0 lies below it and gets the colour of the dead


def size_of(plot: str, classes: int = 0) -> tuple[float, float]:
    """Width and height of a new figure in inches.

    Args:
        plot: "activity", "accumulation", "classes", "raster" or "codeath".
        classes: number of classes, which "classes" shows as rows.
    """
    width, height = _SIZES[plot]
    return width, min(8.0, max(height, 1.5 + 0.18 * classes)) if plot == "classes" else height


def ends_size(layers: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches of a new figure of `plot_ends`, for the layers that it shows."""
    width = min(11.0, max(5.2, 1.4 + 0.2 * len(layers)))
    return width, 3.1 + (0.065 * max(map(len, _short_names(layers))) if len(layers) <= _NAMED else 0.0)


def plot_ends(figures: Mapping[str, Mapping[str, float]], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Both ends of every layer, by depth: a bar per layer, from the first on the left to the last.

    The red end is the share of dead units, the blue end the share of units that are always on, so that a
    ReLU is linear; the units between are sometimes active and sometimes silent. The line across a bar is the
    share of units that are silent on an input, on average: it lies between the two ends. A share above 0 is
    visible however small it is. Up to 24 layers have their names below, more have numbers.

    Args:
        figures: name of the layer -> its figures `dataset`, `always_on` and `per_input`, in [0, 1]; a layer
            without figures is unknown and has a grey bar.
        ax: the axes to draw on.
        title: the title.
    """
    ax = notebook.axes(ax, *ends_size(list(figures)))
    at = np.arange(len(figures))
    known = np.array([bool(values) for values in figures.values()], bool)
    dead, always_on, silent = (
        np.array([values.get(name, np.nan) for values in figures.values()], float)
        for name in ("dataset", "always_on", "per_input")
    )
    ax.bar(at[known], 1, 0.84, color=_BETWEEN, label="sometimes active")
    for heights, sign, color, label in ((always_on, -1, ALWAYS_ON, "always on"), (dead, 1, DEAD, "dead")):
        nonzero = heights > 0  # False for NaN
        bottom = 0 if sign > 0 else 1
        edge = {"edgecolor": color, "linewidth": 0.8}  # as wide as a line, however small the share is
        ax.bar(at[nonzero], sign * heights[nonzero], 0.84, bottom=bottom, color=color, label=label, **edge)
    ink = matplotlib.rcParams["text.color"]
    ax.hlines(silent[known], at[known] - 0.42, at[known] + 0.42, ink, linewidth=1.4, label="silent per input")
    if not known.all():
        ax.bar(at[~known], 1, 0.84, color=UNKNOWN, hatch="//", label="unknown")
    ax.set_xlim(-0.7, len(figures) - 0.3)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylabel("share of the layer's units")
    if len(figures) <= _NAMED:
        ax.set_xticks(at, list(map(plotted, _short_names(list(figures)))), rotation=90)
    else:
        ax.set_xlabel("layer, from the input to the output")
        ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
        ax.xaxis.set_major_formatter(lambda tick, _: f"{tick + 1:.0f}" if tick >= 0 else "")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    order = [labels.index(label) for label in _LEGEND if label in labels]
    ax.legend(
        [handles[k] for k in order],
        [labels[k] for k in order],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3 if len(figures) <= _NAMED else len(order),  # the legend is narrower than the axes
        frameon=False,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.2,
    )
    ax.set_title(plotted(title), loc="left", pad=36 if len(figures) <= _NAMED else 22)
    return ax


def _short_names(layers: Sequence[str]) -> list[str]:
    return [shortened(layer, 28) for layer in layers]


def plot_activity(activity: np.ndarray, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Number of units by the share of inputs on which they are active; dead units have a separate bar.

    Args:
        activity: `(units,)` in [0, 1].
        ax: the axes to draw on.
        title: name of the layer.
    """
    ax = notebook.axes(ax, *size_of("activity"))
    activity = np.asarray(activity, float)
    heights, _, _ = ax.hist(activity[activity > 0], bins=20, range=(0, 1), color=notebook.BLUE)
    dead = int((activity == 0).sum())
    ax.bar(-0.05, dead, width=0.04, color=DEAD)
    ax.annotate(f"{dead} dead", (-0.23, dead), ha="left", va="bottom")
    ax.set_ylim(0, 1.15 * max(1, dead, heights.max()))
    ax.set_xlim(-0.24, 1.02)  # room for the number beside the histogram
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("active on this share of the inputs (red: 0)")
    ax.set_ylabel("units")
    ax.set_title(plotted(title) or "activity of the units")
    return ax


def plot_accumulation(
    accumulation: Accumulation, unseen: Unseen, ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """Number of units that are silent on each of the first n inputs, by n, and how many of the last are dead.

    Args:
        accumulation: of the layer.
        unseen: those of its dead units that would fire on further inputs, at least. They are subtracted at
            the right, with their interval; a bound of 0 is not drawn.
        ax: the axes to draw on.
        title: name of the layer.
    """
    ax = notebook.axes(ax, *size_of("accumulation"))
    inputs, dead = accumulation.curve
    ax.plot(inputs, dead, "o-", color=DEAD, markersize=3.5, label="silent on the first n inputs")
    last, units = inputs[-1], dead[-1]
    if unseen.units > 0:
        at_most = units - np.array([unseen.units, unseen.low, unseen.high])
        right = last * 1.3  # the axis is logarithmic
        ax.vlines(right, at_most[2], at_most[1], color=notebook.BLUE, linewidth=2)
        label = f"less at least {unseen.units:,.0f} alive (Chao2, 95 %)"
        ax.plot(right, at_most[0], "D", color=notebook.BLUE, markersize=4.5, label=label)
    ax.annotate(f"{units:,}", (last, units), (0, 5), textcoords="offset points", ha="center")
    ax.set_xscale("log", base=2)
    ax.set_xlim(0.85, max(2, last) * 1.8)
    ticks = [*(n for n in inputs[::2] if n <= last / 3), last]
    ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
    ax.set_ylim(0, 1.35 * max(1, dead[0]))
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("n, number of inputs")
    ax.set_ylabel("units")
    ax.legend(loc="upper right", frameon=False)
    ax.set_title(plotted(title) or "dead units by the number of inputs")
    return ax


def plot_classes(
    activity: np.ndarray, names: Sequence[str] = (), ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """Activity by class: a row per class, a column per unit.

    Units are sorted by the class on which they are most active, dead units last.

    Args:
        activity: `(classes, units)`, share of the class's inputs on which the unit is active; NaN for a class
            without inputs.
        names: the classes' names; empty numbers them.
        ax: the axes to draw on.
        title: name of the layer.
    """
    activity = np.asarray(activity, float)
    ax = notebook.axes(ax, *size_of("classes", len(activity)))
    filled = np.nan_to_num(activity)
    order = np.lexsort((-filled.max(0), filled.argmax(0), filled.max(0) == 0))
    _show_shares(ax, activity[:, order], "active on this share of the class (red: 0)")
    ax.set_xlabel("unit, by the class it answers most")
    ax.set_ylabel("class")
    _label_some(ax.yaxis, list(names) or list(range(len(activity))), most=40)
    ax.set_title(plotted(title) or "activity by class")
    return ax


def plot_raster(
    activity: Sequence[np.ndarray], epochs: Sequence[int], ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """When each unit died and came back: a row per unit, a column per count.

    Units are sorted by the count at which they were first dead, then by the last count at which they were
    active; those that were never dead come last, the most active first.

    Args:
        activity: one `(units,)` per count, the share of inputs on which the unit was active; NaN if the count
            was unknown.
        epochs: the counts' epochs.
        ax: the axes to draw on.
        title: name of the layer.
    """
    ax = notebook.axes(ax, *size_of("raster"))
    table = np.stack(activity, axis=1)
    _show_shares(ax, table[raster_order(table)], "active on this share of the inputs")
    ax.set_xlabel("epoch")
    ax.set_ylabel("units, by first death")
    _label_some(ax.xaxis, epochs)
    ax.set_title(plotted(title) or "units over epochs")
    return ax


def raster_order(table: np.ndarray) -> np.ndarray:
    """Order of the units in the raster, `(units,)` int, a permutation.

    Args:
        table: `(units, counts)`, the share of inputs on which the unit was active; NaN if unknown.
    """
    counts = table.shape[1]
    dead, active = table == 0, table > 0
    first_dead = np.where(dead.any(1), dead.argmax(1), counts)
    last_active = np.where(active.any(1), counts - active[:, ::-1].argmax(1), 0)
    return np.lexsort((-np.nan_to_num(table).mean(1), last_active, first_dead))


def plot_codeath(phi: np.ndarray, ax: Axes | None = None, *, title: str = "") -> Axes:
    """The phi matrix without units that never change; units that are silent together are adjacent.

    Args:
        phi: `(units, units)` in [-1, 1], NaN for units that never change.
        ax: the axes to draw on.
        title: name of the layer.
    """
    ax = notebook.axes(ax, *size_of("codeath"))
    order = sorted_order(phi)
    changing = order[~np.isnan(np.diagonal(phi)[order])]
    matrix = phi[np.ix_(changing, changing)] if len(changing) else np.full((1, 1), np.nan)
    image = ax.imshow(matrix, cmap=_colormap("RdBu_r"), vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xlabel(f"{len(changing)} of {len(phi)} units that change, by similarity")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.figure.colorbar(image, ax=ax, label="phi: silent together (1), in turn (-1)")
    ax.set_title(plotted(title) or "co-death")
    return ax


def _show_shares(ax: Axes, table: np.ndarray, label: str) -> None:
    colors = _colormap("cividis")
    image = ax.imshow(table, cmap=colors, vmin=_ALMOST_DEAD, vmax=1, aspect="auto", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, extend="min", label=label)
    bar.set_ticks([_ALMOST_DEAD, 0.25, 0.5, 0.75, 1], labels=["0", "25%", "50%", "75%", "100%"])


def _colormap(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(under=DEAD, bad=UNKNOWN)


def _label_some(axis, labels: Sequence, most: int = 12) -> None:
    """Labels every so-many-th tick, at most `most` of them."""
    step = -(-len(labels) // most)
    axis.set_ticks(range(0, len(labels), step), [plotted(str(label)) for label in labels[::step]])
