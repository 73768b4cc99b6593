"""The outlook of a study: the commands and the time of its remaining runs, and reasons to doubt it."""

import dataclasses
import pathlib
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs.reading import FEW_IMAGES
from bnhead.studies import worker
from bnhead.studies.commands import DEFAULTS, train_command
from bnhead.studies.outcomes import SCORED, read_outcomes
from bnhead.studies.plan import Plan
from bnhead.studies.verdict import judge
from bnhead.texts import duration

FEW_SEEDS = 3  # with so few an interval is wide, and a verdict depends on each of them
THREADS = " ".join(f"{name}={value}" for name, value in worker.ENVIRONMENT.items())


def plan_cautions(plan: Plan) -> list[str]:
    """Reasons for which a study may not reach a verdict, known before its first run."""
    lines = []
    if len(plan.seeds) <= FEW_SEEDS:
        lines.append(
            f"{len(plan.seeds)} seeds show large differences only; the default is {DEFAULTS['seeds']}"
        )
    if plan.data.get("test", FEW_IMAGES) < FEW_IMAGES:
        images = plan.data["test"]
        lines.append(f"{images} test images are few: one is {100 / images:.1f} points of accuracy")
    return lines


def list_commands(plan: Plan, directory: pathlib.Path, local: Mapping[str, Any]) -> str:
    """Ids and commands of all runs."""
    lines = [f"{plan.study}: {plan.question}", f"each run with {THREADS}", ""]
    for run in plan.runs:
        lines.append(f"{run.id}  {train_command(dataclasses.asdict(plan.config(run, directory, local)))}")
    return "\n".join(lines)


def write_commands(plan: Plan, directory: pathlib.Path, local: Mapping[str, Any], path: pathlib.Path) -> str:
    """Writes the commands of the missing runs of the next look, one per line, if any are missing.

    Returns:
        A message: the number of commands, and how to use them.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    outcomes = read_outcomes(plan, directory)
    open_runs = [outcome.run for outcome in outcomes if outcome.status not in SCORED]
    seeds = plan.looks[0]
    if not any(run.seed in plan.seeds[:seeds] for run in open_runs):
        step = judge(plan, outcomes)["next"] or {}
        seeds = step["seeds"] if step.get("kind") == "look" else 0
    runs = [run for run in open_runs if run.seed in plan.seeds[:seeds]]
    commands = [train_command(dataclasses.asdict(plan.config(run, directory, local))) for run in runs]
    try:
        path.write_text("".join(f"{THREADS} {command}\n" for command in commands))
    except OSError as error:
        raise RunDirectoryError(f"commands {path} cannot be written: {error.strerror}") from error
    if not commands:
        return f"0 commands in {path}: no run is missing\nnext  this command without --commands"
    return (
        f"{len(commands)} commands in {path}, the missing runs of {seeds} seeds\n"
        "next  run them on any machine that sees this directory, then this command without --commands"
    )


def estimate_time(plan: Plan, directory: pathlib.Path, workers: int, pace: Callable[[], float | None]) -> str:
    """The time that the remaining runs take, from the finished ones or from the first steps of one.

    Args:
        plan: the plan.
        directory: the study's; it need not exist.
        workers: runs at a time.
        pace: returns the seconds of a run, estimated from its first steps, or None if that is impossible.
    """
    finished = [outcome for outcome in read_outcomes(plan, directory) if outcome.status in SCORED]
    missing, total = len(plan.runs) - len(finished), len(plan.runs)
    epochs = " or ".join(map(str, sorted({plan.run_settings(run)["epochs"] for run in plan.runs})))
    text = f"{total} runs of {epochs} epochs, {len(finished)} done, {workers} at a time"
    if not missing:
        return text
    seconds = [run.environment["seconds"] for run in finished if run.environment.get("seconds")]
    each, basis = (
        (statistics.median(seconds), "those done") if seconds else (pace(), "the first steps of one")
    )
    if each is None:
        return f"{text}; how long they take is known when the first has ended"
    return f"{text}: about {duration(each * missing / workers)}, going by {basis}"
