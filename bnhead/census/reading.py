"""The meaning of a layer's dead units, in a sentence."""

import math
from collections.abc import Mapping

USUAL_SILENT = (0.3, 0.75)  # shares of units of a ReLU layer that are silent on an input: about half


def read_layer(figures: Mapping[str, float | None], activation: str = "") -> str:
    """The figures of a layer in a sentence: "no dead units; 52 % silent per input is usual for ReLU".

    Args:
        figures: figure -> value of one layer, as `census.keys.figures` returns them; shares in [0, 1].
        activation: the layer's, if it is known. Half of the units are usually silent after a ReLU; after
            another activation the sentence makes no claim.

    Returns:
        The sentence without a full stop; empty if a figure is missing or not finite.
    """
    dead, silent = figures.get("dataset"), figures.get("per_input")
    if any(value is None or not math.isfinite(value) for value in (dead, silent)):
        return ""
    share = f"{silent:.0%}".replace("%", " %") + " silent per input"
    if activation == "relu":
        low, high = USUAL_SILENT
        share += (
            " is usual for ReLU"
            if low <= silent <= high
            else f" is {'little' if silent < low else 'much'} for ReLU, where about half is usual"
        )
    if not dead:
        return f"no dead units; {share}"
    return f"{dead:.1%}".replace("%", " % dead") + f"; {share}"
