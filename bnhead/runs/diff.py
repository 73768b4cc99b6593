"""How two runs differ. Reads files only, without TensorFlow."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs import atomic
from bnhead.runs.directory import RunDirectory

_UNLIKE = ("images_per_second",)  # differs between any two runs


def report(one: str, other: str) -> str:
    """In what the runs in two directories differ, as text.

    Raises:
        RunDirectoryError: a directory that holds no run.
    """
    first, second = _read(one), _read(other)
    lines = []
    for name in ("settings", "ran on", "result"):
        rows = [row for row in _rows(first[name], second[name])]
        lines += ["", name, *_table(rows)] if rows else ["", name, "  the same"]
    lines += ["", "history", f"  {parting(first['history'], second['history'])}"]
    return "\n".join([f"- {one}", f"+ {other}", *lines])


def differences(one: dict, other: dict) -> dict[str, tuple[Any, Any]]:
    """Values that differ by key, None for one that is not there; NaN equals NaN."""
    keys = list({**one, **other})
    return {key: (one.get(key), other.get(key)) for key in keys if not _equal(one.get(key), other.get(key))}


def parting(one: Sequence[dict], other: Sequence[dict]) -> str:
    """From which epoch on two histories, rows of figures by name, differ."""
    for before, after in zip(one, other, strict=False):
        found = [name for name in differences(before, after) if name not in _UNLIKE]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return f"they part in epoch {before['epoch']:g}: {found[0]}{more} differ"
    if len(one) != len(other):
        return f"the same for {min(len(one), len(other))} epochs; one has {len(one)}, the other {len(other)}"
    return f"the same in all {len(one)} epochs"


def _read(place: str) -> dict:
    directory = RunDirectory(place)
    settings = directory.read("config.json")
    if settings is None:
        raise RunDirectoryError(f"{place} holds no run: there is no config.json")
    result = directory.read("result.json") or directory.read("status.json") or {}
    ran_on = directory.read("environment.json") or {}
    return {
        "settings": settings,
        "ran on": {key: value for key, value in ran_on.items() if key not in ("started", "sessions")},
        "result": _flat(result),
        "history": _history(directory.path / "history.csv"),
    }


def _history(path: pathlib.Path) -> list[dict]:
    """A run's table; empty before the first epoch."""
    try:
        rows = atomic.read_table(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    if any("epoch" not in row for row in rows):
        raise RunDirectoryError(f"{path} cannot be read: it has no column epoch")
    return rows


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _equal(one: Any, other: Any) -> bool:
    both_nan = all(isinstance(x, float) and math.isnan(x) for x in (one, other))
    return both_nan or (one == other and type(one) is type(other))


def _rows(one: dict, other: dict) -> list[tuple[str, str, str, str]]:
    rows = []
    for key, (before, after) in differences(one, other).items():
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (before, after))
        rows.append((key, _shown(before), _shown(after), f"{after - before:+.6g}" if numbers else ""))
    return rows


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
