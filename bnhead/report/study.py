"""A study's directory as values: plan, verdict and runs. Whatever is half there is told, not raised."""

import csv
import pathlib
import re
from dataclasses import dataclass, field
from typing import Any

from bnhead import files
from bnhead.errors import RunDirectoryError

_COMPARED = {"name": str, "control": str, "treatment": str, "stratum": dict}
_PLAN = {
    "study": str,
    "question": str,
    "primary": str,
    "delta": float,
    "alpha": float,
    "seeds": [int],
    "exclusions": str,
    "cells": [{"name": str, "head": str, "stratum": dict, "settings": dict}],
    "comparisons": [_COMPARED],
    "settings": dict,
    "runs": [{"id": str, "cell": str, "seed": int}],
    "code": dict,
    "sha256": str,
}
_VERDICT = {
    "plan_sha256": str,
    "exploratory": [str],
    "word": str,
    "sentence": str,
    "flow": dict,
    "exclusions": [{"run": str, "cell": str, "seed": int, "reason": str}],
    "comparisons": [{**_COMPARED, "word": str, "sentence": str, "differences": list, "seeds": [int]}],
    "cells": [{"name": str, "dead": dict}],
    "width_law": [{"head": str, "layer": str, "points": [{"fc_units": float, "seed": int, "share": float}]}],
}


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        id: name of its directory in `runs/`.
        cell, seed: its place in the plan.
        config, environment, result: the JSON files; empty where one could not be read.
        history: column -> a number for each epoch, NaN where there is none.
        problem: why not all of it could be read; empty when all could.
    """

    id: str
    cell: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Study:
    """A plan, what was concluded, and the runs in the plan's order."""

    plan: dict[str, Any]
    verdict: dict[str, Any]
    runs: list[Run]

    def of_cell(self, name: str) -> list[Run]:
        """The runs of one cell, in the plan's order."""
        return [run for run in self.runs if run.cell == name]


def read(directory: pathlib.Path) -> Study:
    """The study in a directory.

    Raises:
        RunDirectoryError: there is none, or its plan or verdict is not what a study writes.
    """
    plan = _checked(directory / "plan.json", _PLAN, "holds neither a study nor a run")
    verdict = _checked(directory / "verdict.json", _VERDICT, "holds a study without a verdict yet")
    for index, run in enumerate(plan["runs"]):
        if not re.fullmatch(r"\w+", run["id"]):
            raise RunDirectoryError(
                f"{directory / 'plan.json'}: runs[{index}]: id {run['id']!r} is no name of a run"
            )
    cells = {cell["name"] for cell in plan["cells"]}
    named = {entry["cell"] for entry in plan["runs"]}
    named |= {one[side] for one in verdict["comparisons"] for side in ("control", "treatment")}
    named |= {cell["name"] for cell in verdict["cells"]}
    if named - cells:
        raise RunDirectoryError(f"{directory}: no cell is called {min(named - cells)!r} in plan.json")
    runs = [read_run(directory / "runs" / run["id"], run["cell"], run["seed"]) for run in plan["runs"]]
    return Study(plan, verdict, runs)


def read_run(directory: pathlib.Path, cell: str = "", seed: int = 0) -> Run:
    """The run in a directory; `problem` says what of it could not be read."""
    if not directory.is_dir():
        return Run(directory.name, cell, seed, problem="not there")
    content, problems = {}, []
    for name in ("config.json", "environment.json", "result.json", "history.csv"):
        try:
            reader = _history if name.endswith(".csv") else files.read_json
            content[name.partition(".")[0]] = reader(directory / name)
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except (OSError, ValueError, csv.Error):
            problems.append(f"{name} cannot be read")
    return Run(directory.name, cell, seed, problem="; ".join(problems), **content)


def _checked(path: pathlib.Path, shape: dict, missing: str) -> dict[str, Any]:
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        raise RunDirectoryError(f"{path.parent} {missing}: {path.name} is missing") from None
    except NotADirectoryError:
        raise RunDirectoryError(f"{path.parent} is a file, not a study's directory") from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    _check(content, shape, str(path))
    return content


def _history(path: pathlib.Path) -> dict[str, list[float]]:
    """Raises ValueError where a row is cut off or no number."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = zip(*rows, strict=True) if rows else [[]] * len(header)
    return {name: [float(text or "nan") for text in own] for name, own in zip(header, columns, strict=True)}


def _check(value: Any, shape: Any, where: str) -> None:
    """Raises where `value` is not of the shape: a type, a list of one shape, or a dict of shapes."""
    kind = shape if isinstance(shape, type) else type(shape)
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise RunDirectoryError(f"{where} must be of type {kind.__name__}, got {value!r:.60}")
    if isinstance(shape, list):
        for index, item in enumerate(value):
            _check(item, shape[0], f"{where}[{index}]")
    if isinstance(shape, dict):
        for key, own in shape.items():
            if key not in value:
                raise RunDirectoryError(f"{where} has no {key!r}")
            _check(value[key], own, f"{where}: {key}")
