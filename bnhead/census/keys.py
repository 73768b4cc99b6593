"""Names of the figures in `logs`, in result files and in TensorBoard: `dead/<layer>/<figure>`.

A layer's name may contain slashes (`encoder/relu`), a figure's may not. A table that lists dead units only
omits the group: `<layer>/<figure>`. A figure of the units of all counted layers is `dead/<figure>`.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def key(layer: str, figure: str) -> str:
    """`dead/<layer>/<figure>`."""
    return f"dead/{layer}/{figure}"


def overall(figure: str) -> str:
    """`dead/<figure>`, of all counted layers together."""
    return f"dead/{figure}"


def is_key(text: str) -> bool:
    """Whether a name belongs to a layer's figure."""
    return text.startswith("dead/") and text.count("/") > 1


def parts(text: str) -> tuple[str, str]:
    """Layer and figure of a key."""
    return short_parts(short(text))


def short(text: str) -> str:
    """`<layer>/<figure>` of a key."""
    return text.removeprefix("dead/")


def short_parts(text: str) -> tuple[str, str]:
    """Layer and figure of a name made by `short`."""
    layer, _, figure = text.rpartition("/")
    return layer, figure


def plot(name: str, layer: str = "") -> str:
    """Tag of a plot in TensorBoard: `plots/<layer>/<name>`, of all counted layers `plots/<name>`."""
    return f"plots/{layer}/{name}" if layer else f"plots/{name}"


def is_plot(tag: str) -> bool:
    """Whether a tag is that of a plot."""
    return tag.startswith("plots/")


def plot_parts(tag: str) -> tuple[str, str]:
    """Layer, empty for all counted layers, and name of a plot."""
    return short_parts(tag.removeprefix("plots/"))


def layers_of(names: Iterable[str], figure: str | None = None) -> list[str]:
    """The layers of the keys among `names`, without repeats, in order.

    Args:
        names: keys and other names.
        figure: only keys with this figure are read; None for all.
    """
    pairs = (parts(name) for name in names if is_key(name))
    return list(dict.fromkeys(layer for layer, key_figure in pairs if figure in (None, key_figure)))


def figures(values: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """The figures of one layer.

    Args:
        values: figures by key; other names are ignored.
        layer: name of the layer.

    Returns:
        figure -> value.
    """
    pairs = {parts(name): value for name, value in values.items() if is_key(name)}
    return {figure: value for (key_layer, figure), value in pairs.items() if key_layer == layer}
