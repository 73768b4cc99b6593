"""A study from its plan to its verdict: whatever was done before is kept, and the holes are filled."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from bnhead import errors
from bnhead.errors import RunDirectoryError, StudyError
from bnhead.runs.directory import RunDirectory
from bnhead.studies import directory as files
from bnhead.studies import worker
from bnhead.studies.outcomes import SCORED, damage, read
from bnhead.studies.plan import Plan, PlannedRun, with_data
from bnhead.studies.pool import Event, Job
from bnhead.studies.progress import StudyLines
from bnhead.studies.verdict import judge
from bnhead.training.config import TrainConfig

ALIKE = 3  # so many identical failures in a row end a study
Work = Callable[[TrainConfig, Callable], dict]


class Engine(Protocol):
    """What does jobs, as `bnhead.studies.pool` says."""

    def run(self, jobs: Sequence[Job]) -> Any: ...


def prepare(
    wanted: Plan,
    directory: pathlib.Path,
    engine: Engine,
    *,
    amend: bool = False,
    elsewhere: Mapping[str, Any] = MappingProxyType({}),
    look: Work = worker.look_at_data,
) -> Plan:
    """The plan in the directory, written there now if it was not; its hash covers the data.

    Args:
        wanted: the plan that is asked for.
        directory: the study's, held by the caller.
        engine: looks at the data.
        amend: whether a plan that is there may be changed.
        elsewhere: fields of the runs' configs that are no settings, such as `data_dir`.
        look: what tells about the data.

    Raises:
        RunDirectoryError: the directory holds something else.
        DataError: the data is not there.
    """
    before = files.read_plan(directory)
    if before is not None:
        plan = files.settle(before, wanted, amend=amend)
        if plan.code != before.code:
            _check_one_code(plan, directory)
        if plan != before:
            files.write_plan(directory, plan, before)
        return plan
    job = Job("data", "", wanted.config(wanted.runs[0], directory, elsewhere), look)
    plan = with_data(wanted, outcome(engine, job))
    files.write_plan(directory, plan)
    return plan


def _check_one_code(plan: Plan, directory: pathlib.Path) -> None:
    """Raises RunDirectoryError where some runs were begun by the code before, and others would be by this."""
    outcomes = read(plan, directory, {})
    begun = sum(one.started for one in outcomes)
    if begun and not all(one.status in SCORED for one in outcomes):
        raise RunDirectoryError(
            f"code cannot be amended: it has changed since {begun} of {len(outcomes)} runs were begun, "
            "and runs of two codes are no comparison; choose another --dir"
        )


def outcome(engine: Engine, job: Job) -> Mapping[str, Any]:
    """What comes of a single job.

    Raises:
        StudyError, UsageError, DataError, RunDirectoryError: the job's error.
    """
    ends = {event.what: event.detail for event in engine.run([job])}
    if "failed" in ends:
        raise _as_error(ends["failed"])
    return ends["done"]


def fill(
    plan: Plan,
    directory: pathlib.Path,
    engine: Engine,
    *,
    elsewhere: Mapping[str, Any] = MappingProxyType({}),
    work: Work = worker.train_one,
    bar: bool | None = None,
) -> None:
    """Does the runs that have no result. One that fails is recorded and done again next time.

    Args:
        plan: the plan, as in the directory.
        directory: the study's, held by the caller.
        engine: does the runs.
        elsewhere: fields of the runs' configs that are no settings, such as `data_dir`.
        work: what does a run.
        bar: as of `StudyLines`.

    Raises:
        StudyError: three runs in a row failed alike.
        RunDirectoryError: the directory cannot be written.
    """
    todo = holes(plan, directory)
    jobs = [Job(run.id, run.cell, plan.config(run, directory, elsewhere), work) for run in todo]
    failed = files.failures(directory)
    row: list[str] = []
    with StudyLines(todo, len(plan.runs) - len(todo), plan.settings["epochs"], bar=bar) as lines:
        for event in engine.run(jobs):
            lines.show(event)
            if event.what == "done" and failed.pop(event.job.id, None):
                files.write_failures(directory, failed)
            if event.what == "failed":
                run = next(run for run in todo if run.id == event.job.id)
                failed[run.id] = {"cell": run.cell, "seed": run.seed, **event.detail}
                files.write_failures(directory, failed)
            row = _row(row, event, str(directory))
            if len(row) == ALIKE:
                raise StudyError(f"{ALIKE} runs in a row failed alike, the last with: {_text(event.detail)}")


def holes(plan: Plan, directory: pathlib.Path) -> list[PlannedRun]:
    """The runs without a result. Those whose files contradict each other are set aside, to be done again.

    Runs are in the order of their seeds, so that a study that is stopped has whole pairs.
    """
    for run in plan.runs:
        if reason := damage(directory / "runs" / run.id, plan.run_settings(run), plan.primary):
            place = files.set_aside(directory, run.id)
            print(f"{run.cell}, seed {run.seed}: {reason}; moved to {place}, to be done again", flush=True)
    done = {one.run.id for one in read(plan, directory, {}) if one.status in SCORED}
    return sorted(
        (run for run in plan.runs if run.id not in done), key=lambda run: plan.seeds.index(run.seed)
    )


def conclude(plan: Plan, directory: pathlib.Path) -> dict[str, Any]:
    """Reads the outcomes, writes `verdict.json` and returns what it holds."""
    verdict = recomputed(plan, directory)
    RunDirectory(directory).write("verdict.json", verdict)
    return verdict


def recomputed(plan: Plan, directory: pathlib.Path) -> dict[str, Any]:
    """The verdict as the files of the runs have it."""
    failed = {key: _text(failure) for key, failure in files.failures(directory).items()}
    return judge(plan, read(plan, directory, failed))


def _row(row: list[str], event: Event, directory: str) -> list[str]:
    """The identical failures in a row, after an event. Paths of runs do not make failures differ."""
    if event.what == "done":
        return []
    if event.what != "failed":
        return row
    text = _text(event.detail).replace(event.job.id, "").replace(directory, "")
    return [*row, text] if not row or row[-1] == text else [text]


def _text(failure: Mapping[str, Any]) -> str:
    return f"{failure['error']}: {failure['message']}"


def _as_error(failure: Mapping[str, Any]) -> Exception:
    """A worker's error as one of this process."""
    known = getattr(errors, failure["error"], None)
    return known(failure["message"]) if known else StudyError(_text(failure))
