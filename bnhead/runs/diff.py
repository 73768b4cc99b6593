"""The differences between two runs. Reads files only, without TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs import history
from bnhead.runs.directory import RunDirectory

_MEASURED_TIMES = ("images_per_second",)  # differ between any two runs


@dataclass(frozen=True)
class Differences:
    """What differs between two runs.

    Attributes:
        values: section (settings, ran on, result) -> key -> both values; None for a missing one.
        history: the first epoch in which the histories differ, in words.
    """

    values: dict[str, dict[str, tuple[Any, Any]]]
    history: str


def diff_runs(first: str, second: str) -> Differences:
    """The differences between the runs in two directories.

    Raises:
        RunDirectoryError: a directory that holds no run.
    """
    minus, plus = _read_sections(first), _read_sections(second)
    values = {name: differing_values(minus[name], plus[name]) for name in ("settings", "ran on", "result")}
    return Differences(values, first_differing_epoch(minus["history"], plus["history"]))


def differing_values(first: dict, second: dict) -> dict[str, tuple[Any, Any]]:
    """Values that differ, by key; None for a missing one. NaN equals NaN."""
    pairs = {key: (first.get(key), second.get(key)) for key in {**first, **second}}
    return {key: pair for key, pair in pairs.items() if not _equal(*pair)}


def first_differing_epoch(first: Sequence[dict], second: Sequence[dict]) -> str:
    """The first epoch in which two histories differ, in words."""
    for row, counterpart in zip(first, second, strict=False):
        names = [name for name in differing_values(row, counterpart) if name not in _MEASURED_TIMES]
        if names:
            further = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"they part in epoch {row['epoch']:g}: {names[0]}{further} differ"
    if len(first) != len(second):
        return (
            f"the same for {min(len(first), len(second))} epochs; "
            f"one has {len(first)}, the other {len(second)}"
        )
    return f"the same in all {len(first)} epochs"


def _read_sections(path: str) -> dict[str, Any]:
    directory = RunDirectory(path)
    settings = directory.read("config.json")
    if settings is None:
        raise RunDirectoryError(f"{path} holds no run: there is no config.json")
    result = directory.read("result.json") or directory.read("status.json") or {}
    ran_on = directory.read("environment.json") or {}
    try:
        rows = history.read_history(directory.path)
        if any("epoch" not in row for row in rows):
            raise ValueError("it has no column epoch")
    except FileNotFoundError:  # the first epoch is not over
        rows = []
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{directory.path / history.NAME} cannot be read: {error}") from error
    return {
        "settings": settings,
        "ran on": {key: value for key, value in ran_on.items() if key not in ("started", "sessions")},
        "result": _flatten(result),
        "history": rows,
    }


def _flatten(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _equal(first: Any, second: Any) -> bool:
    if all(isinstance(x, float) and math.isnan(x) for x in (first, second)):
        return True
    return first == second and type(first) is type(second)
