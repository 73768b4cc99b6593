"""The runs of a comparison: a user's model is trained, measured after every epoch and written."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bnhead.census import Probe
from bnhead.census.census import Census
from bnhead.comparison.data import ComparedData, labels_of
from bnhead.comparison.model import Builder, built_model, model_sha256, set_seed, unnumbered
from bnhead.comparison.trainees import Alone, Stacks, can_stack
from bnhead.devices.environment import describe_environment
from bnhead.errors import UsageError
from bnhead.report import build as build_report
from bnhead.runs.directory import RunDirectory
from bnhead.runs.predictions import NAME, Predictions, of_outputs, write_predictions
from bnhead.studies import runner
from bnhead.studies.directory import locked_study
from bnhead.studies.plan import Plan, PlannedRun
from bnhead.studies.pool_serial import Pool

MOST_COUNTED = 2048  # test inputs on which dead units are counted


@dataclass(frozen=True)
class RunTask:
    """Everything that one run needs; `stacks` train it together with others."""

    plan: Plan
    run: PlannedRun
    directory: pathlib.Path
    build: Builder
    data: ComparedData
    fit: Mapping[str, Any]
    stacks: Stacks | None = None


def finish_runs(
    plan: Plan,
    directory: pathlib.Path,
    builders: Mapping[str, Builder],
    data: ComparedData,
    fit: Mapping[str, Any],
    progress: bool | None,
) -> None:
    """Does the runs of the plan that have no result, and writes the verdict and the report.

    Args:
        plan: its cells are named as the builders.
        directory: of the study.
        builders: name -> function of the seed.
        data: of all runs.
        fit, progress: as of `compare`.
    """

    stacks = Stacks(data, plan.settings["batch_size"]) if can_stack(data, fit) else None

    def task_of(run: PlannedRun) -> RunTask:
        return RunTask(plan, run, directory, builders[run.cell], data, fit, stacks)

    with locked_study(directory):
        plan = runner.prepare(plan, directory, Pool(), look=lambda config, report: data.facts)
        runner.finish_study(
            plan, directory, stacks or Pool(), configure=task_of, work=train_run, bar=progress
        )
        build_report(directory)


def train_run(task: RunTask, report: Callable[[dict], None]) -> Iterator[dict[str, Any]]:
    """Trains one model and writes its run directory. Yields its progress; returns status and metric."""
    plan, data, seed = task.plan, task.data, task.run.seed
    settings = plan.run_settings(task.run)
    directory = RunDirectory(task.directory / "runs" / task.run.id)
    with directory.claimed(settings):
        directory.begin(settings)
        directory.write("environment.json", describe_environment())
        directory.write("status.json", {"status": "running"})
        model = built_model(task.run.cell, task.build, seed, data)
        if model_sha256(model) != settings["model_sha256"]:
            raise UsageError(f"build returns another model for head {task.run.cell!r} and seed {seed}")
        set_seed(seed, "fit")
        trainee = task.stacks and task.stacks.together.join(task.run.cell, model, seed)
        if trainee:
            yield {"share": 0.0}  # all join before the first trains
        else:
            trainee = Alone(model, data, seed, settings["batch_size"], task.fit)
        rows, model = [], trainee.model
        for epoch in range(settings["epochs"]):
            if epoch:  # not after the last, when the model must keep its values until it is written
                yield {"share": epoch / settings["epochs"]}
            row = {"epoch": epoch + 1, **trainee.train(epoch)}
            predictions, census = _test(model, trainee.probe, data, plan.task)
            rows.append(
                row | _test_figures(model, data, predictions, plan) | census.figures(with_sample=True)
            )
            directory.write_history(rows)
            if not math.isfinite(rows[-1].get("loss", 0.0)):
                break
        status = "finished" if math.isfinite(rows[-1].get("loss", 0.0)) else "diverged"
        names = ("name", "train", "test", "train_sha256", "test_sha256")
        result = {
            "status": status,
            "epochs": len(rows),
            **{key: value for key, value in rows[-1].items() if key.startswith(("test_", "dead/"))},
            "parameters": model.count_params(),
            "data": {name: data.facts[name] for name in names},
            "head": task.run.cell,
        }
        directory.replace(NAME, lambda path: write_predictions(path, predictions))
        with contextlib.suppress(NotImplementedError):  # a subclassed model need not have a config
            directory.replace("model.keras", model.save)
        directory.finish(result)
    return {"status": status, plan.primary: result.get(plan.primary)}


def _test(
    model: keras.Model, probe: Probe | None, data: ComparedData, task: str
) -> tuple[Predictions, Census]:
    """The model's predictions for all test inputs, and the census of the first ones, in one pass."""
    if probe is None:
        outputs = np.asarray(model.predict(data.x, verbose=0))
        silent, layers, census = np.full((len(data.y), 1), np.nan), ("none",), Census()
    else:
        census, outputs, silent = probe.count_per_input(data.tested(0, MOST_COUNTED))
        if len(data.y) > MOST_COUNTED:
            uncounted = probe.per_input(data.tested(MOST_COUNTED))
            outputs, silent = (
                np.concatenate(pair) for pair in zip((outputs, silent), uncounted[:2], strict=True)
            )
        layers = tuple(unnumbered(site.name) for site in probe.sites)
        census.layers = {unnumbered(name): counts for name, counts in census.layers.items()}
    outputs = outputs.reshape(len(data.y), -1).astype("float64")
    if data.facts["classes"] and (outputs >= 0).all() and np.allclose(outputs.sum(1), 1, atol=1e-3):
        outputs = np.log(np.maximum(outputs, 1e-30))  # logits of probabilities
    return of_outputs(outputs, labels_of(data.y), silent, layers, task), census


def _test_figures(
    model: keras.Model, data: ComparedData, predictions: Predictions, plan: Plan
) -> dict[str, float]:
    """The figures of the test set after an epoch."""
    figures = {}
    if plan.task == "classification":
        figures["test_accuracy"] = float(predictions.accuracy().mean())
        figures["test_loss"] = float(predictions.negative_log_likelihood("classification").mean())
    else:
        targets = np.asarray(data.y, "float64").reshape(len(data.y), -1)
        errors = ((targets - predictions.outputs) ** 2).sum(0)
        spread = ((targets - targets.mean(0)) ** 2).sum(0)
        figures["test_r2"] = float((1 - errors / spread).mean())
    if plan.primary not in figures:
        scores = model.evaluate(data.x, data.y, verbose=0, return_dict=True)
        name = plan.primary.removeprefix("test_")
        if name not in scores:
            raise UsageError(f"metric {name!r} is none of the model's ({', '.join(scores)})")
        figures[plan.primary] = float(scores[name])
    return figures
