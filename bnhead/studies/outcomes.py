"""What came of each planned run, read from its directory alone, so that a verdict can be had again."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnhead.census import keys
from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import MODELS, RunDirectory
from bnhead.runs.history import read_history
from bnhead.studies.plan import Plan, PlannedRun

UNTRAINED = ("diverged", "failed_to_learn")  # these are scored at chance
SCORED = ("finished", *UNTRAINED)


@dataclass(frozen=True)
class Outcome:
    """A planned run and what came of it.

    Attributes:
        run: the planned run.
        status: one of `SCORED`, or failed (an error ended it), damaged (its files contradict each other or
            the plan), unfinished, missing.
        score: the primary metric after the last epoch, chance for the `UNTRAINED`; None without an end.
        reason: in words, where the status is not finished.
        started: whether its directory is there.
        result: what `result.json` holds.
        environment: what `environment.json` holds.
    """

    run: PlannedRun
    status: str
    score: float | None = None
    reason: str = ""
    started: bool = True
    result: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def read(plan: Plan, directory: pathlib.Path, failures: Mapping[str, str]) -> list[Outcome]:
    """The outcomes of all planned runs, in the plan's order.

    Args:
        plan: the plan.
        directory: the study's directory.
        failures: run id -> error, of runs that an error ended.
    """
    return [_outcome(plan, run, directory / "runs" / run.id, failures) for run in plan.runs]


def damage(place: pathlib.Path, settings: Mapping[str, Any], primary: str) -> str:
    """Why the files of a run contradict each other or its settings; empty where they do not.

    A run that has not ended yet is not damaged by that.

    Args:
        place: the run's directory.
        settings: what its `config.json` must hold.
        primary: the figure it is scored by.
    """
    directory = RunDirectory(place)
    try:
        config, result = directory.read("config.json"), directory.read("result.json")
        environment, told = directory.read("environment.json"), directory.read("status.json")
    except RunDirectoryError as error:
        return str(error)
    if config is None:
        return "result.json is there and config.json is not" if result is not None else ""
    if config != json.loads(json.dumps(settings)):
        return "config.json holds other settings than the plan"
    if result is None:
        return ""
    if not environment:
        return "result.json is there and environment.json is not"
    status = result["status"]
    if status not in SCORED:
        return f"result.json has the status {status!r:.40}, which no run ends with"
    if told and told["status"] != status:
        return f"status is {told['status']} in status.json and {status} in result.json"
    if found := _contradiction(place, settings, primary, result):
        return found
    changed = directory.changes()
    lost = [name for name in MODELS if changed.get(name) == "is missing"]  # no number rests on them
    return ", ".join(f"{name} {text}" for name, text in changed.items() if name not in lost)


def _contradiction(
    place: pathlib.Path, settings: Mapping[str, Any], primary: str, result: Mapping[str, Any]
) -> str:
    """Whether a result is that of its history's last epoch, and a finished run's of the last of all."""
    finished = result["status"] == "finished"
    if finished and not _is_finite(result.get(primary)):
        return f"result.json has no finite {primary}"
    try:
        rows = read_history(place)
        last = {primary: rows[-1][primary], **rows[-1]}
    except (OSError, ValueError, LookupError) as error:
        return f"history.csv cannot be read: {error}"
    if len(rows) != result.get("epochs") or (finished and len(rows) != settings["epochs"]):
        return f"history.csv has {len(rows)} epochs, result.json {result.get('epochs')}"
    if not finished or settings["recompute_batch_stats"] != "none":  # then the result is of other statistics
        return ""
    for key in (name for name in last if name in result and (name.startswith("test_") or keys.is_key(name))):
        there, here = last[key], result[key]
        if there != here and (_is_finite(there) or here is not None):
            return f"{key} is {there} in history.csv and {here} in result.json"
    return ""


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _outcome(plan: Plan, run: PlannedRun, place: pathlib.Path, failures: Mapping[str, str]) -> Outcome:
    if reason := damage(place, plan.run_settings(run), plan.primary):
        return Outcome(run, "damaged", reason=reason)
    directory = RunDirectory(place)
    config, result = directory.read("config.json"), directory.read("result.json")
    if result is None and run.id in failures:
        return Outcome(run, "failed", reason=failures[run.id], started=config is not None)
    if config is None:
        return Outcome(run, "missing", reason="not started", started=False)
    if result is None:
        return Outcome(run, "unfinished", reason="not finished")
    environment = directory.read("environment.json") or {}
    status = result["status"]
    if status == "finished":
        return Outcome(run, status, float(result[plan.primary]), result=result, environment=environment)
    reason = f"{status.replace('_', ' ')}, scored at chance"
    return Outcome(run, status, plan.chance, reason, result=result, environment=environment)


def flow(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many runs were planned, started, ended how, and are analysed."""

    def count(*statuses: str) -> int:
        return sum(outcome.status in statuses for outcome in outcomes)

    return {
        "planned": len(outcomes),
        "started": sum(outcome.started for outcome in outcomes),
        "finished": count("finished"),
        "diverged": count("diverged"),
        "failed_to_learn": count("failed_to_learn"),
        "failed": count("failed", "damaged"),
        "missing": count("missing", "unfinished"),
        "analysed": count(*SCORED),
    }


def exclusions(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The runs that are not simply finished, each with its reason."""
    return [
        {"run": one.run.id, "cell": one.run.cell, "seed": one.run.seed, "reason": one.reason}
        for one in outcomes
        if one.status != "finished"
    ]
