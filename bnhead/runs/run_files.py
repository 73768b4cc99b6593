"""The files of one run as values, each read once. An unreadable file is recorded, not raised."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bnhead.runs import atomic, schema
from bnhead.runs.history import read_history

MISSING = "is missing"
_NAMES = ("config.json", "environment.json", "status.json", "result.json", "history.csv")


@dataclass(frozen=True)
class RunFiles:
    """The files in one run's directory.

    Attributes:
        path: the run's directory.
        config, environment, status, result: the JSON files; empty if missing or unreadable.
        history: column -> a number per epoch, NaN for an empty cell.
        problems: file name -> why it could not be read: `MISSING` or "cannot be read: ...".
    """

    path: pathlib.Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """What could not be read, for a reader of the report; `status.json` is not used there."""
        if len(self.problems) == len(_NAMES) and set(self.problems.values()) == {MISSING}:
            return "not there"
        names = ("config.json", "environment.json", "result.json", "history.csv")
        return "; ".join(f"{name} {self.problems[name]}" for name in names if name in self.problems)

    def lacks(self, name: str) -> bool:
        """Whether the run has no file of this name. An unreadable file is not missing."""
        return self.problems.get(name) == MISSING


def read_run_files(path: pathlib.Path) -> RunFiles:
    """The files of the run in a directory, which need not exist."""
    content, problems = {}, {}
    for name in _NAMES:
        try:
            if name == "history.csv":
                rows = read_history(path)
                content["history"] = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
            else:
                content[name.removesuffix(".json")] = atomic.read_json(path / name, schema.OF[name])
        except (FileNotFoundError, NotADirectoryError):
            problems[name] = MISSING
        except (OSError, ValueError) as error:
            problems[name] = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return RunFiles(path, **content, problems=problems)
