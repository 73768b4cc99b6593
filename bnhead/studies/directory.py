"""The files of a study. One process at a time may write them.

plan.json            the plan, written before the first run
plan-<hash>.json     a plan that was amended later
runs/<id>/           the runs, as `bnhead train` leaves them
failures.json        the error of each run that ended with one; removed when none is left
damaged/             run directories whose files contradicted each other
verdict.json         the conclusions
report.html, report.md, runs.csv, figures/, tensorboard/
                     written by `bnhead.report` from the files above
lock                 held by the process that works here
"""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs import lock
from bnhead.runs.directory import RunDirectory
from bnhead.runs.run_files import RunFiles, read_run_files
from bnhead.studies.plan import (
    Plan,
    PlannedRun,
    amended,
    from_json,
    is_edited,
    plan_differences,
    to_json,
    with_choices,
)


@dataclass(frozen=True)
class StudyFiles:
    """The files of a study, for its report.

    Attributes:
        plan: the plan.
        plan_sha256: the hash in `plan.json`.
        is_edited: whether `plan.json` was edited after it was hashed.
        verdict: the content of `verdict.json`; empty before there is one.
        runs: run id -> its files, in the plan's order.
    """

    plan: Plan
    plan_sha256: str
    is_edited: bool
    verdict: dict[str, Any]
    runs: dict[str, RunFiles]

    @property
    def judged_runs(self) -> list[PlannedRun]:
        """The runs of the look that was judged, in the plan's order."""
        seeds = self.plan.seeds[: self.verdict.get("look", {}).get("seeds", len(self.plan.seeds))]
        return [run for run in self.plan.runs if run.seed in seeds]

    def of_cell(self, name: str) -> list[RunFiles]:
        """The judged runs of one cell, in the plan's order."""
        return [self.runs[run.id] for run in self.judged_runs if run.cell == name]


@contextlib.contextmanager
def locked_study(directory: pathlib.Path) -> Iterator[None]:
    """Creates the directory if needed and locks every other process out until the end.

    Raises:
        RunDirectoryError: another process works there, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"dir {directory} cannot be written: {error.strerror}") from error
    with lock.writer_lock(directory):
        yield


def read_plan(directory: pathlib.Path) -> Plan | None:
    """The plan in a study's directory; None for a new directory.

    Raises:
        RunDirectoryError: the directory holds something else, or a plan that is unreadable or was edited.
    """
    content = RunDirectory(directory).read("plan.json")
    if content is not None:
        path = directory / "plan.json"
        if is_edited(content):
            raise RunDirectoryError(f"{path} was changed since it was written: its hash does not match")
        return from_json(content, str(path))
    if directory.is_dir():
        names = [p.name for p in directory.iterdir() if p.name != lock.NAME and not p.name.startswith(".")]
        if names:
            raise RunDirectoryError(
                f"dir {directory} is not empty and holds no study ({min(names)}); choose another --dir"
            )
    elif directory.exists():
        raise RunDirectoryError(f"dir {directory} is a file")
    return None


def read_study(directory: pathlib.Path, runs: Mapping[str, RunFiles] | None = None) -> StudyFiles:
    """The study in a directory. An edited plan and runs that cannot be read are accepted and recorded.

    Args:
        directory: the study's directory.
        runs: run id -> its files, if they have been read already.

    Raises:
        RunDirectoryError: the directory holds no study, or the content of its plan or verdict is malformed.
    """
    records = RunDirectory(directory)
    content = records.read("plan.json")
    if directory.is_file():
        raise RunDirectoryError(f"{directory} is a file, not a study's directory")
    if content is None:
        raise RunDirectoryError(f"{directory} holds neither a study nor a run: plan.json is missing")
    plan = from_json(content, str(directory / "plan.json"))  # first: it knows a study of earlier rules
    verdict = records.read("verdict.json") or {}
    for problem in _verdict_problems(verdict, {cell.name for cell in plan.cells}):
        raise RunDirectoryError(f"{directory / 'verdict.json'}: {problem}")
    if runs is None:
        runs = {run.id: read_run_files(directory / "runs" / run.id) for run in plan.runs}
    return StudyFiles(plan, content["sha256"], is_edited(content), verdict, dict(runs))


def _verdict_problems(verdict: dict[str, Any], cells: set[str]) -> Iterator[str]:
    """The values that no study writes, in a verdict of the right shape; none in an empty one."""
    if not verdict:
        return
    named = {comparison[side] for comparison in verdict["comparisons"] for side in ("control", "treatment")}
    for name in sorted((named | {cell["name"] for cell in verdict["cells"]}) - cells):
        yield f"the plan has no cell called {name!r}"
    for comparison in verdict["comparisons"]:
        sizes = len(comparison["differences"]), len(comparison["seeds"])
        if sizes[0] != sizes[1]:
            yield "{} has {} differences of {} seeds".format(comparison["name"], *sizes)
    points = [point for law in verdict["width_law"] for point in law["points"]]
    if any(point["fc_units"] < 1 or not 0 <= point["share"] <= 1 for point in points):
        yield "width_law: fc_units must be at least 1, and share between 0 and 1"


def settled_plan(current: Plan, requested: Plan, *, amend: bool) -> Plan:
    """The plan with which a study goes on.

    Args:
        current: the plan in the directory.
        requested: the plan that the command asks for.
        amend: whether the current plan may be changed, which makes the study exploratory.

    Raises:
        RunDirectoryError: they differ, and `amend` is False or the difference cannot be amended.
    """
    requested = with_choices(requested, current.settings)  # those that the study has fixed
    changes = plan_differences(current, requested)
    if not changes:
        return current
    if amend:
        return amended(current, requested)
    texts = ", ".join(f"{name} {text}" for name, text in changes.items())
    raise RunDirectoryError(
        f"dir holds another plan: {texts}; choose another --dir, or --amend if only delta, alpha, code or "
        "the number of seeds differ (the study is then exploratory)"
    )


def write_plan(directory: pathlib.Path, plan: Plan, replaced: Plan | None = None) -> None:
    """Writes the plan; the plan that it amends is kept under its hash."""
    records = RunDirectory(directory)
    if replaced is not None:
        records.write(f"plan-{replaced.sha256[:12]}.json", to_json(replaced))
    records.write("plan.json", to_json(plan))


def read_failures(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Run id -> the error that ended it: `error`, `message`, `cell`, `seed`, `traceback`."""
    return RunDirectory(directory).read("failures.json") or {}


def write_failures(directory: pathlib.Path, failures: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the failures in the order of their ids, or removes the file if there are none."""
    if failures:
        RunDirectory(directory).write("failures.json", {key: failures[key] for key in sorted(failures)})
    else:
        (directory / "failures.json").unlink(missing_ok=True)


def set_aside(directory: pathlib.Path, run: str) -> pathlib.Path:
    """Moves a run's directory to `damaged/`, so that the run is repeated, and returns its new path."""
    try:
        (directory / "damaged").mkdir(exist_ok=True)
        paths = (directory / "damaged" / f"{run}-{number}" for number in itertools.count(1))
        return (directory / "runs" / run).rename(next(path for path in paths if not path.exists()))
    except OSError as error:
        raise RunDirectoryError(f"{directory / 'runs' / run} cannot be moved: {error.strerror}") from error
