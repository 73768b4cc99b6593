"""Names of the figures in `logs`, in result files and in TensorBoard: `dead/<layer>/<figure>`.

A layer's name may have slashes of its own (`encoder/relu`); a figure's has none. A table of dead units alone
leaves the group out: `<layer>/<figure>`.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def key(layer: str, figure: str) -> str:
    """`dead/<layer>/<figure>`."""
    return f"dead/{layer}/{figure}"


def is_key(text: str) -> bool:
    """Whether a name is that of a layer's figure."""
    return text.startswith("dead/") and text.count("/") > 1


def parts(text: str) -> tuple[str, str]:
    """Layer and figure of a key."""
    return short_parts(short(text))


def short(text: str) -> str:
    """`<layer>/<figure>` of a key."""
    return text.removeprefix("dead/")


def short_parts(text: str) -> tuple[str, str]:
    """Layer and figure of what `short` gave."""
    layer, _, figure = text.rpartition("/")
    return layer, figure


def layers(names: Iterable[str], figure: str | None = None) -> list[str]:
    """The layers of all keys among `names`, or of those with this figure, each once, in order."""
    split = (parts(name) for name in names if is_key(name))
    return list(dict.fromkeys(layer for layer, other in split if figure in (None, other)))


def figures(values: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """A layer's figures by name, of values by key."""
    split = {parts(name): value for name, value in values.items() if is_key(name)}
    return {figure: value for (other, figure), value in split.items() if other == layer}
