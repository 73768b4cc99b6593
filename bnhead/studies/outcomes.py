"""The outcome of each planned run, from the files of the run alone, so that a verdict can be recomputed."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from bnhead.census import keys
from bnhead.runs.directory import MODELS, RunDirectory
from bnhead.runs.predictions import NAME, VARIANTS, Predictions, read_predictions
from bnhead.runs.run_files import MISSING, RunFiles, read_run_files
from bnhead.studies.measures import PRIMARY
from bnhead.studies.plan import Plan, PlannedRun
from bnhead.studies.wording import is_number

UNTRAINED = ("diverged", "failed_to_learn")  # these are scored at chance
SCORED = ("finished", *UNTRAINED)
Failures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """A planned run and its outcome.

    Attributes:
        run: the planned run.
        status: one of `SCORED`, or failed (ended by an error), damaged (its files contradict each other or
            the plan), unfinished, missing.
        score: the task's metric after the last epoch, chance for the `UNTRAINED`; None before the end.
        values: name of a measure -> its numbers, one for each test image or one for the run; those of the
            `UNTRAINED` are chance, and without a chance there are none.
        layer: name of the layer whose units are counted.
        reason: in words, unless the status is finished.
        started: whether its directory exists.
        result: the content of `result.json`; empty without a score.
        environment: the content of `environment.json`; empty without a score.
        files: all files of the run, as read; None for an outcome that was not read from files.
        population: as `values`, with population statistics in the head's batch norms, where a run was
            measured with them.
        without_norms: likewise without the head's batch norms.
    """

    run: PlannedRun
    status: str
    score: float | None = None
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    layer: str = ""
    reason: str = ""
    started: bool = True
    result: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    files: RunFiles | None = field(default=None, repr=False)
    population: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    without_norms: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


def read_outcomes(
    plan: Plan, directory: pathlib.Path, failures: Failures = MappingProxyType({})
) -> list[Outcome]:
    """The outcomes of all planned runs, in the plan's order.

    Args:
        plan: the plan.
        directory: the study's directory.
        failures: run id -> `error` and `message` of the error that ended the run, as in `failures.json`.
    """
    return [read_outcome(plan, run, directory, failures) for run in plan.runs]


def read_outcome(
    plan: Plan, run: PlannedRun, directory: pathlib.Path, failures: Failures = MappingProxyType({})
) -> Outcome:
    """The outcome of one run; arguments as of `read_outcomes`. Each of its files is read once."""
    files = read_run_files(directory / "runs" / run.id)
    if reason := damage(files, plan.run_settings(run), plan.primary):
        return Outcome(run, "damaged", reason=reason, files=files)
    started = not files.lacks("config.json")
    if not files.result:
        if run.id in failures:
            return Outcome(run, "failed", reason=failure_text(failures[run.id]), started=started, files=files)
        status, reason = ("unfinished", "not finished") if started else ("missing", "not started")
        return Outcome(run, status, reason=reason, started=started, files=files)
    status, read = files.result["status"], {"result": files.result, "environment": files.environment}
    if status in UNTRAINED:
        chances = {row.name: plan.chance(row.name) for row in plan.measures}
        return Outcome(
            run,
            status,
            plan.chance(PRIMARY[plan.task]),
            {name: np.array([value]) for name, value in chances.items() if value is not None},
            reason=f"{status.replace('_', ' ')}, scored at chance",
            **read,
            files=files,
        )
    try:
        predictions = read_predictions(files.path)
        if predictions.images != (images := files.result["data"]["test"]):
            raise ValueError(f"it has {predictions.images} images, and the test split {images}")
        task = plan.run_settings(run)["task"]
        numbers = _numbers(plan, files.result, predictions, task)
        variants = {}
        for name in VARIANTS:
            if (figures := files.result.get(name)) is not None:
                if (of_variant := getattr(predictions, name)) is None:
                    raise ValueError(f"it has no outputs of {name}, and result.json has figures")
                variants[name] = _numbers(plan, {**files.result, **figures}, of_variant, task)
    except (OSError, ValueError, IndexError) as error:
        text = getattr(error, "strerror", None) or error
        return Outcome(run, "damaged", reason=f"{NAME} cannot be read: {text}", files=files)
    return Outcome(
        run,
        status,
        float(files.result[plan.primary]),
        numbers,
        predictions.layers[0],
        **read,
        files=files,
        **variants,
    )


def _numbers(
    plan: Plan, result: Mapping[str, Any], predictions: Predictions, task: str
) -> dict[str, np.ndarray]:
    """Name of each measure of the plan -> its finite numbers, of a run of a task."""
    numbers = {row.name: row.measure.values(result, predictions, task) for row in plan.measures}
    return {name: array for name, array in numbers.items() if array is not None and np.isfinite(array).all()}


def damage(files: RunFiles, settings: Mapping[str, Any], primary: str) -> str:
    """How the files of a run contradict each other or its settings; empty if they do not.

    An unfinished run is not damaged.

    Args:
        files: the run's files.
        settings: the expected content of `config.json`.
        primary: the figure that scores the run.
    """
    for name, problem in files.problems.items():
        if problem != MISSING and name.endswith(".json"):
            return f"{name} {problem}"
    result = files.result
    if files.lacks("config.json"):
        return "result.json exists and config.json does not" if result else ""
    if files.config != json.loads(json.dumps(settings)):
        return "config.json holds other settings than the plan"
    if not result:
        return ""
    if not files.environment:
        return "result.json exists and environment.json does not"
    status = result["status"]
    if status not in SCORED:
        return f"result.json has the status {status!r:.40}, with which no run ends"
    if files.status and files.status["status"] != status:
        return f"status is {files.status['status']} in status.json and {status} in result.json"
    if contradiction := _contradiction(files, settings, primary):
        return contradiction
    changes = RunDirectory(files.path).changes()
    # No number depends on the models, so that a run without them still counts.
    lost = [name for name in MODELS if changes.get(name) == MISSING]
    return ", ".join(f"{name} {text}" for name, text in changes.items() if name not in lost)


def _contradiction(files: RunFiles, settings: Mapping[str, Any], primary: str) -> str:
    """How `result.json` contradicts the last row of `history.csv`; empty if it does not."""
    result, history = files.result, files.history
    finished = result["status"] == "finished"
    if finished and not is_number(result.get(primary)):
        return f"result.json has no finite {primary}"
    if "history.csv" in files.problems:
        return f"history.csv {files.problems['history.csv']}"
    if primary not in history:
        return f"history.csv has no values of {primary}"
    epochs = len(history[primary])
    if epochs != result.get("epochs") or (finished and epochs != settings["epochs"]):
        return f"history.csv has {epochs} epochs, result.json {result.get('epochs')}"
    if (
        not finished
        or settings.get("recompute_batch_stats", "none") != "none"
        or settings.get("adaptation") == "adabn"
    ):
        return ""  # the result was measured with other batch statistics than the history
    for key in dict.fromkeys((primary, *history)):
        if key in result and (key.startswith("test_") or keys.is_key(key)):
            logged, final = history[key][-1], result[key]
            if logged != final and (is_number(logged) or final is not None):
                return f"{key} is {logged} in history.csv and {final} in result.json"
    return ""


def failure_text(failure: Mapping[str, Any]) -> str:
    """`"ValueError: message"`."""
    return f"{failure['error']}: {failure['message']}"


def flow(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The number of runs that were planned and started, that ended in each way, and that are analysed."""

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
    """The runs that did not finish normally, each with its reason."""
    return [
        {"run": outcome.run.id, "cell": outcome.run.cell, "seed": outcome.run.seed, "reason": outcome.reason}
        for outcome in outcomes
        if outcome.status != "finished"
    ]
