"""A study's directory as values: plan, verdict and runs. Whatever is half there is told, not raised."""

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs import atomic, schema
from bnhead.runs.history import read_history


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
    plan = _read(directory / "plan.json", "holds neither a study nor a run")
    verdict = _read(directory / "verdict.json", "holds a study without a verdict yet")
    if wrong := next(_nonsense(plan, verdict), ""):
        raise RunDirectoryError(f"{directory}/{wrong}")
    runs = [read_run(directory / "runs" / run["id"], run["cell"], run["seed"]) for run in plan["runs"]]
    return Study(plan, verdict, runs)


def read_run(directory: pathlib.Path, cell: str = "", seed: int = 0) -> Run:
    """The run in a directory; `problem` says what of it could not be read."""
    if not directory.is_dir():
        return Run(directory.name, cell, seed, problem="not there")
    content, problems = {}, []
    for name in ("config.json", "environment.json", "result.json", "history.csv"):
        try:
            content[name.partition(".")[0]] = _content(directory / name)
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except (OSError, ValueError) as error:
            problems.append(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")
    return Run(directory.name, cell, seed, problem="; ".join(problems), **content)


def _content(path: pathlib.Path) -> dict[str, Any]:
    """What a run's JSON file holds, or the columns of its history."""
    if path.suffix == ".json":
        return atomic.read_json(path, schema.OF[path.name])
    rows = read_history(path.parent)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _read(path: pathlib.Path, missing: str) -> dict[str, Any]:
    try:
        return atomic.read_json(path, schema.OF[path.name])
    except FileNotFoundError:
        raise RunDirectoryError(f"{path.parent} {missing}: {path.name} is missing") from None
    except NotADirectoryError:
        raise RunDirectoryError(f"{path.parent} is a file, not a study's directory") from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def _nonsense(plan: dict[str, Any], verdict: dict[str, Any]) -> Iterator[str]:
    """What a study cannot have written although its shape is right."""
    for name, most in (("delta", 1), ("alpha", 0.5)):
        if not 0 < plan[name] < most:
            yield f"plan.json: {name} must be between 0 and {most}, got {plan[name]}"
    if not plan["primary"].startswith("test_"):
        yield f"plan.json: primary must be a figure of the test split, got {plan['primary']!r:.60}"
    for name in ("seeds", "cells"):
        if not plan[name]:
            yield f"plan.json: {name} must not be empty"
    for index, run in enumerate(plan["runs"]):
        if not re.fullmatch(r"\w{1,80}", run["id"]):
            yield f"plan.json: runs[{index}]: id {run['id']!r:.60} is no name of a run"
    cells = {cell["name"] for cell in plan["cells"]}
    named = {entry["cell"] for entry in plan["runs"]}
    named |= {one[side] for one in verdict["comparisons"] for side in ("control", "treatment")}
    named |= {cell["name"] for cell in verdict["cells"]}
    if named - cells:
        yield f"plan.json has no cell that is called {min(named - cells)!r}"
    for one in verdict["comparisons"]:
        numbers = tuple(len(one[name]) for name in ("differences", "seeds"))
        if numbers[0] != numbers[1]:
            yield "verdict.json: {} has {} differences of {} seeds".format(one["name"], *numbers)
    points = [point for law in verdict["width_law"] for point in law["points"]]
    if any(point["fc_units"] < 1 or not 0 <= point["share"] <= 1 for point in points):
        yield "verdict.json: width_law: fc_units must be at least 1, and share between 0 and 1"
