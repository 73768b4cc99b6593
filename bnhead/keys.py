"""Names of the figures in `logs`, in result files and in TensorBoard: `dead/<layer>/<figure>`.

A layer's name may have slashes of its own (`encoder/relu`); a figure's has none.
"""

from collections.abc import Iterable


def key(layer: str, figure: str) -> str:
    """`dead/<layer>/<figure>`."""
    return f"dead/{layer}/{figure}"


def is_key(text: str) -> bool:
    """Whether a name is that of a layer's figure."""
    return text.startswith("dead/") and text.count("/") > 1


def parts(text: str) -> tuple[str, str]:
    """Layer and figure of a key."""
    layer, _, figure = text.removeprefix("dead/").rpartition("/")
    return layer, figure


def layers(names: Iterable[str], figure: str | None = None) -> list[str]:
    """The layers of all keys among `names`, or of those with this figure, each once, in order."""
    found = (parts(name) for name in names if is_key(name))
    return list(dict.fromkeys(layer for layer, other in found if figure in (None, other)))
