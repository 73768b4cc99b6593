"""A study from its plan to its verdict. Runs with a result are kept, and the missing ones are done."""

import contextlib
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from bnhead import errors, texts
from bnhead.errors import Interrupted, RunDirectoryError, StudyError
from bnhead.runs.directory import RunDirectory
from bnhead.studies import directory as files, worker
from bnhead.studies.outcomes import SCORED, Outcome, failure_text, read_outcome, read_outcomes
from bnhead.studies.plan import Plan, PlannedRun, with_choices, with_data
from bnhead.studies.pool import Event, Job
from bnhead.studies.progress import StudyLines
from bnhead.studies.verdict import judge
from bnhead.training.config import TrainConfig

MAX_ALIKE = 3  # this many identical failures in a row end a study
Work = Callable[[TrainConfig, Callable], dict]


class Engine(Protocol):
    """Anything that does jobs, such as the pools of `bnhead.studies.pool`."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]: ...


def prepare(
    requested: Plan,
    directory: pathlib.Path,
    engine: Engine,
    *,
    amend: bool = False,
    machine_fields: Mapping[str, Any] = MappingProxyType({}),
    look: Work = worker.look_at_data,
) -> Plan:
    """The plan of the study in the directory, written first if needed; its hash covers the data.

    Args:
        requested: the plan that the command asks for.
        directory: the study's directory, locked by the caller.
        engine: looks at the data.
        amend: whether an existing plan may be changed.
        machine_fields: fields of the runs' configs that are not settings, such as `data_dir`.
        look: the job that returns facts about the data, and perhaps `choices` for the plan's open settings.

    Raises:
        RunDirectoryError: the directory holds something else.
        DataError: the data does not exist.
    """
    current = files.read_plan(directory)
    if current is None:
        # `compare` knows its data without a worker
        run = requested.runs[0]
        config = requested.config(run, directory, machine_fields) if look is worker.look_at_data else None
        facts = dict(result_of(engine, Job("data", "", config, look)))
        choices = facts.pop("choices", None)
        plan = with_data(requested, facts)
        if choices is not None:
            plan = with_choices(plan, choices["fields"])
            for line in choices["lines"]:
                print(texts.wrapped(line, hanging=2), flush=True)
        files.write_plan(directory, plan)
        return plan
    plan = files.settled_plan(current, requested, amend=amend)
    if plan.code != current.code:
        outcomes = read_outcomes(plan, directory)
        started = sum(outcome.started for outcome in outcomes)
        if started and not all(outcome.status in SCORED for outcome in outcomes):
            raise RunDirectoryError(
                f"code cannot be amended: it has changed since {started} of {len(outcomes)} runs were "
                "started, and runs of different code cannot be compared; choose another --dir"
            )
    if plan != current:
        files.write_plan(directory, plan, current)
    return plan


def result_of(engine: Engine, job: Job) -> Mapping[str, Any]:
    """The result of a single job.

    Raises:
        StudyError, UsageError, DataError, RunDirectoryError: the job's error.
    """
    details = {event.state: event.detail for event in engine.run([job])}
    if failure := details.get("failed"):
        # the worker's error, as one of this process
        error_type = getattr(errors, failure["error"], None)
        raise error_type(failure["message"]) if error_type else StudyError(failure_text(failure))
    return details["done"]


def finish_study(
    plan: Plan, directory: pathlib.Path, engine: Engine, **options: Any
) -> tuple[dict[str, Any], list[Outcome]]:
    """Does the runs of one look after the other until a look decides, and writes the verdict after each.

    Args:
        plan, directory, engine: as of `fill`.
        **options: further arguments of `fill`.

    Returns:
        The content of `verdict.json`, and the outcomes of all runs in the plan's order.

    Raises:
        StudyError, RunDirectoryError: as `fill`.
    """
    for number, seeds in enumerate(plan.looks, 1):
        outcomes = fill(plan, directory, engine, seeds=plan.seeds[:seeds], **options)
        verdict = conclude(plan, directory, outcomes)
        step, look = verdict["next"], verdict["look"]
        # it is of an earlier look where runs failed, and of a later one where those were done before
        if step is None or step["kind"] != "look" or look["number"] < number:
            break
        if look["number"] == number:
            print(f"undecided after {seeds} seeds; on to {step['seeds']}", flush=True)
    return verdict, outcomes


def fill(
    plan: Plan,
    directory: pathlib.Path,
    engine: Engine,
    *,
    seeds: Sequence[int] | None = None,
    machine_fields: Mapping[str, Any] = MappingProxyType({}),
    configure: Callable[[PlannedRun], Any] | None = None,
    work: Work = worker.train_one,
    bar: bool | None = None,
) -> list[Outcome]:
    """Does the runs without a result. A run that fails is recorded and done again next time.

    Args:
        plan: the plan, as in the directory.
        directory: the study's directory, locked by the caller.
        engine: does the runs.
        seeds: those whose runs are done; None for all of the plan's.
        machine_fields: fields of the runs' configs that are not settings, such as `data_dir`.
        configure: a run -> what `work` gets; None gives it the run's `TrainConfig`.
        work: the job that does a run.
        bar: as of `StudyLines`.

    Returns:
        The outcomes of all runs, in the plan's order.

    Raises:
        StudyError: three runs in a row failed alike.
        RunDirectoryError: the directory cannot be written.
    """
    outcomes = sound_outcomes(plan, directory)
    requested = [outcome for outcome in outcomes if seeds is None or outcome.run.seed in seeds]
    unfinished = [outcome.run for outcome in requested if outcome.status not in SCORED]
    # By seed, so that a study that is stopped has complete pairs.
    unfinished.sort(key=lambda run: plan.seeds.index(run.seed))
    runs = {run.id: run for run in unfinished}
    configure = configure or (lambda run: plan.config(run, directory, machine_fields))
    jobs = [Job(run.id, run.cell, configure(run), work) for run in unfinished]
    failures = files.read_failures(directory)
    alike: list[str] = []  # the identical failures in a row
    seconds = [o.environment.get("seconds") or 0.0 for o in requested if o.status in SCORED]
    with StudyLines(unfinished, seconds, bar=bar) as lines, _kept_runs_named(lines):
        for event in engine.run(jobs):
            lines.show(event)
            run = runs[event.job.id]
            if event.state == "done":
                alike = []
                if failures.pop(run.id, None):
                    files.write_failures(directory, failures)
            elif event.state == "failed":
                failures[run.id] = {"cell": run.cell, "seed": run.seed, **event.detail}
                files.write_failures(directory, failures)
                # the path of its run does not make a failure different
                text = failure_text(event.detail).replace(run.id, "").replace(str(directory), "")
                alike = [*alike, text] if not alike or alike[-1] == text else [text]
                if len(alike) == MAX_ALIKE:
                    text = failure_text(event.detail)
                    raise StudyError(f"{MAX_ALIKE} runs in a row failed alike, the last with: {text}")
    return [
        read_outcome(plan, outcome.run, directory, failures) if outcome.run.id in runs else outcome
        for outcome in outcomes
    ]


@contextlib.contextmanager
def _kept_runs_named(lines: StudyLines) -> Iterator[None]:
    """Makes Ctrl-C report the number of runs that are kept."""
    try:
        yield
    except KeyboardInterrupt:
        notice = f"{lines.kept} of {lines.planned} runs are kept; the same command goes on"
        raise Interrupted(signal.SIGINT, notice) from None


def sound_outcomes(plan: Plan, directory: pathlib.Path) -> list[Outcome]:
    """The outcomes of all runs. Damaged runs are moved away first, and are then missing."""
    outcomes = read_outcomes(plan, directory)
    for index, outcome in enumerate(outcomes):
        if outcome.status == "damaged":
            run = outcome.run
            path = files.set_aside(directory, run.id)
            print(
                f"{run.cell}, seed {run.seed}: {outcome.reason}; moved to {path}, to be repeated", flush=True
            )
            outcomes[index] = read_outcome(plan, run, directory)
    return outcomes


def conclude(plan: Plan, directory: pathlib.Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Writes `verdict.json` for the outcomes that `fill` returned, and returns its content."""
    verdict = judge(plan, outcomes)
    RunDirectory(directory).write("verdict.json", verdict)
    return verdict
