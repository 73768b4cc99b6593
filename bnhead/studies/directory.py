"""The files of a study: plan.json and verdict.json, the runs, what failed; one process at a time.

plan.json            the plan, written before the first run
plan-<hash>.json     a plan that was amended later
runs/<id>/           the runs, as `bnhead train` leaves them
failures.json        the error of each run that one ended; gone when none is left
damaged/             run directories whose files contradicted each other
verdict.json         what may be concluded
lock                 held by the process that works here
"""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs import lock
from bnhead.runs.directory import RunDirectory
from bnhead.studies.plan import Plan, amended, differences, from_json, to_json


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
    """Makes the directory where it is not there, and keeps every other process out until the end.

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
    """The plan in a study's directory; None where nothing is.

    Raises:
        RunDirectoryError: the place holds something else, or a plan that cannot be read or was changed.
    """
    content = RunDirectory(directory).read("plan.json")
    if content is not None:
        return from_json(content, str(directory / "plan.json"))
    if directory.is_dir():
        others = [p.name for p in directory.iterdir() if p.name != lock.NAME and not p.name.startswith(".")]
        if others:
            raise RunDirectoryError(
                f"dir {directory} is not empty and holds no study ({sorted(others)[0]}); choose another --dir"
            )
    elif directory.exists():
        raise RunDirectoryError(f"dir {directory} is a file")
    return None


def settle(before: Plan, wanted: Plan, *, amend: bool) -> Plan:
    """The plan that goes on in a directory that has one.

    Args:
        before: the plan there.
        wanted: the plan that the command asks for.
        amend: whether the plan there may be changed, which makes the study exploratory.

    Raises:
        RunDirectoryError: they differ, and `amend` is not given or cannot change what differs.
    """
    found = differences(before, wanted)
    if not found:
        return before
    plan = amended(before, wanted) if amend else None
    if plan is None:
        texts = ", ".join(f"{name} {text}" for name, text in found.items())
        hint = "choose another --dir, or --amend where delta, alpha, code or more seeds make it exploratory"
        raise RunDirectoryError(f"dir holds another plan: {texts}; {hint}")
    return plan


def write_plan(directory: pathlib.Path, plan: Plan, before: Plan | None = None) -> None:
    """Writes the plan; `before`, which it amends, is kept under its hash."""
    records = RunDirectory(directory)
    if before is not None:
        records.write(f"plan-{before.sha256[:12]}.json", to_json(before))
    records.write("plan.json", to_json(plan))


def failures(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Run id -> what is known of the error that ended it: `error`, `message`, `cell`, `seed`, `traceback`."""
    return RunDirectory(directory).read("failures.json") or {}


def write_failures(directory: pathlib.Path, failed: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the failures in the order of their ids; without any, there is no file."""
    if failed:
        RunDirectory(directory).write("failures.json", {key: failed[key] for key in sorted(failed)})
    else:
        (directory / "failures.json").unlink(missing_ok=True)


def set_aside(directory: pathlib.Path, run: str) -> pathlib.Path:
    """Moves a run's directory to `damaged/`, so that the run can be done again, and returns its new place."""
    try:
        (directory / "damaged").mkdir(exist_ok=True)
        places = (directory / "damaged" / f"{run}-{number}" for number in itertools.count(1))
        return (directory / "runs" / run).rename(next(place for place in places if not place.exists()))
    except OSError as error:
        raise RunDirectoryError(f"{directory / 'runs' / run} cannot be moved: {error.strerror}") from error
