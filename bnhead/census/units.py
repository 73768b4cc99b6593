"""The units of a census one by one, as a file: which are dead, always on, ..., and how often each fires.

NumPy only.
"""

import csv
import io
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bnhead.errors import UsageError, nearest

if TYPE_CHECKING:
    from bnhead.census.census import Census


def encoded(census: "Census", suffix: str) -> bytes:
    """The content of a file of units. Layers whose count is void have no units; JSON gives the reason.

    Args:
        census: the counts.
        suffix: a key of `FORMATS`.

    Raises:
        UsageError: an unknown format.
    """
    require_format(suffix)
    return FORMATS[suffix](census)


def require_format(suffix: str) -> None:
    """Raises UsageError unless there is a format of this suffix."""
    if suffix not in FORMATS:
        advice = nearest(suffix, FORMATS)
        raise UsageError(f"units must be a file that ends in {', '.join(FORMATS)}, got {suffix!r}{advice}")


def _csv(census: "Census") -> bytes:
    """A row per unit: layer, unit, inputs, active, first_active, and 0 or 1 for each mask."""
    countable = {name: counts for name, counts in census.layers.items() if not counts.unknown}
    masks = list(dict.fromkeys(mask for counts in countable.values() for mask in counts.masks))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["layer", "unit", "inputs", "active", "first_active", *masks])
    for name, counts in countable.items():
        empty = [""] * counts.units  # a mask that only other layers have
        first = empty if counts.accumulation is None else counts.accumulation.first_active.tolist()
        columns = [
            counts.masks[mask].astype(int).tolist() if mask in counts.masks else empty for mask in masks
        ]
        for unit, (active, *further) in enumerate(zip(counts.active.tolist(), first, *columns, strict=True)):
            table.writerow([name, unit, counts.inputs, active, *further])
    return text.getvalue().encode()


def _json(census: "Census") -> bytes:
    """layer -> units, inputs, and the indices of the units of each mask; or why the count is unknown."""
    layers = {}
    for name, counts in census.layers.items():
        masks = {mask: counts.indices(mask).tolist() for mask in counts.masks}
        sample = {"units": counts.units, "inputs": counts.inputs}
        layers[name] = {**sample, **({"unknown": counts.unknown} if counts.unknown else masks)}
    return (json.dumps(layers) + "\n").encode()


def _npz(census: "Census") -> bytes:
    """`<layer>/inputs`, `<layer>/active` and `<layer>/<mask>`, bool."""
    arrays = {}
    for name, counts in census.layers.items():
        if not counts.unknown:
            numbers = {"inputs": np.int64(counts.inputs), "active": counts.active}
            arrays |= {f"{name}/{key}": array for key, array in (numbers | counts.masks).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


FORMATS: dict[str, Callable[["Census"], bytes]] = {".csv": _csv, ".json": _json, ".npz": _npz}


def save(census: "Census", path: str | pathlib.Path) -> None:
    """Writes the units of a census to a file; see `Census.save_units`."""
    path = pathlib.Path(path)
    path.write_bytes(encoded(census, path.suffix))
