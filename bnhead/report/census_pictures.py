"""The plots of a census as SVG inside a page: sharp at any size, with the page's ink in both themes."""

import io
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bnhead.census import axes
from bnhead.census.counts import Counts

_IMAGE_DPI = 216  # of the pixels inside a plot: three for each point
_INK = "#010203"  # a colour that no plot has; the page's ink replaces it
_STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "axes.facecolor": "none",
    "font.size": 9,  # 12 pixels
    "axes.titlesize": 9,
    "svg.fonttype": "none",  # letters, not outlines
    "svg.hashsalt": "bnhead",  # equal plots, equal bytes
}


def layer_pictures(counts: Counts, classes: Sequence[str] = ()) -> dict[str, str]:
    """The plots that the counts of a layer allow, as SVG elements; none for an unknown count.

    Args:
        counts: of the layer.
        classes: names of the classes; empty numbers them.

    Returns:
        "activity" and, if counted, "classes" and "codeath".
    """
    if counts.unknown:
        return {}
    pictures = {"activity": svg(lambda ax: axes.plot_activity(counts.active / counts.inputs, ax), "activity")}
    if counts.class_active is not None:
        draw = lambda ax: axes.plot_classes(counts.class_activity, classes, ax)  # noqa: E731
        pictures["classes"] = svg(draw, "classes", len(counts.class_active))
    if (phi := counts.phi) is not None and np.isfinite(np.diagonal(phi)).sum() > 1:
        pictures["codeath"] = svg(lambda ax: axes.plot_codeath(phi, ax), "codeath")
    return pictures


def svg(draw: Callable[[Axes], object], plot: str, classes: int = 0) -> str:
    """A plot as an SVG element for the inside of an HTML page.

    Args:
        draw: draws on the axes.
        plot, classes: as of `axes.size_of`.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=axes.size_of(plot, classes), facecolor="none", layout="constrained")
        FigureCanvasSVG(figure)  # without pyplot: no global state, no display
        draw(figure.add_subplot()).set_title("")  # the page has a caption
        text = io.StringIO()
        figure.savefig(text, format="svg", dpi=_IMAGE_DPI, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    element = text.getvalue()
    element = element[element.index("<svg") :].replace(_INK, "currentColor")
    # an element inside HTML needs no name spaces, and names of groups repeat from plot to plot
    element = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[\d.]+"|(?<=<g) id="[^"]*"', "", element)
    return element.strip()
