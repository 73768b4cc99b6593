"""A study in the calling process, of a user's own models and data: `bnhead.compare`.

The plan, the pairing by seed, the looks, the verdict and the files are those of `bnhead study`. A run is
repeated from its beginning if it was stopped; finished runs are kept.
"""

import contextlib
import hashlib
import json
import math
import pathlib
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bnhead import heads as head_texts
from bnhead.census import Probe
from bnhead.devices.environment import describe_environment
from bnhead.errors import UsageError
from bnhead.graph.inputs import batches
from bnhead.runs.directory import RunDirectory
from bnhead.runs.predictions import NAME, Predictions, write_predictions
from bnhead.runs.provenance import source_sha256
from bnhead.seeds import stream
from bnhead.studies import runner
from bnhead.studies.directory import locked_study
from bnhead.studies.measures import MEASURES, PRIMARY, SECONDARY
from bnhead.studies.plan import (
    Cell,
    Plan,
    PlannedMeasure,
    PlannedRun,
    comparisons_of,
    number_problems,
    with_runs,
)
from bnhead.studies.pool import Event, Job
from bnhead.studies.study_verdict import Verdict, read_verdict
from bnhead.version import __version__

MOST_COUNTED = 2048  # test inputs on which dead units are counted
Build = Callable[[str, int], keras.Model]


def compare(
    build: Build | None = None,
    data: Any = None,
    heads: Sequence[str] = (),
    *,
    builders: Mapping[str, Callable[[int], keras.Model]] | None = None,
    control: str = "",
    seeds: int | Sequence[int] = (10, 20, 40),
    epochs: int = 10,
    batch_size: int = 128,
    metric: str = "",
    better: str = "higher",
    delta: float = 0.0,
    alpha: float = 0.05,
    question: str = "",
    dir: str = "studies/compare",
    progress: bool | None = None,
    fit: Mapping[str, Any] | None = None,
) -> Verdict:
    """Trains every head with every seed, in this process, and returns the verdict.

    The same call goes on with a study that was stopped. Before `build` is called, Keras' random seed is set
    from the run's seed, and again before training. If the training data are arrays or a name, runs of one
    seed see the same batches, whatever their heads have drawn; a `tf.data.Dataset` is read as it comes.

    Args:
        build: `(head, seed) -> compiled keras.Model`; the head is one of `heads`, any text.
        data: `(train, test)`, each `(x, y)` arrays or a `tf.data.Dataset` of batches `(x, y)`; or the name of
            a data set, as of `--dataset`. Test data must fit in memory. `batch_size` is for arrays and names.
        heads: the control first.
        builders: instead of `build` and `heads`: name -> function of the seed that returns a compiled model.
        control: another head as control.
        seeds: number of seeds, or a list of looks: the study is judged after each of these numbers of seeds,
            and stops at the first that decides.
        epochs: of each run.
        batch_size: of training.
        metric: "accuracy", "nll", "r2" or "dead_share"; or a metric that the model was compiled with, for
            which `delta` is needed. "" is accuracy for classes, else R^2.
        better: "higher" or "lower", for a metric of the model.
        delta: the margin: a smaller difference is not material. 0 is the usual one of the metric.
        alpha: error rate.
        question: one sentence, for the report.
        dir: directory of the study. It holds what `bnhead study` writes, the report too.
        progress: whether to show a bar; None shows one on a terminal.
        fit: further arguments of `model.fit`, such as `class_weight`.

    Returns:
        The verdict: it prints, and has `to_frame`, `plot` and the directory's `report.html`.

    Raises:
        UsageError: arguments that do not fit, or a model that is not compiled.
        RunDirectoryError: `dir` holds another study; the message says what differs: the model of a head, the
            data, a setting.
        StudyError: three runs in a row failed alike.
    """
    builders = _builders(build, heads, builders, control)
    if better not in ("higher", "lower"):
        raise UsageError(f"better must be 'higher' or 'lower', got {better!r}")
    numbers = {"epochs": epochs, "batch_size": batch_size}
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
    looks = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    compared = ComparedData.of(data, batch_size)
    models = {name: _built(name, builder, 0, compared) for name, builder in builders.items()}
    task = _task_of(next(iter(models.values())), compared)
    plan = _plan_of(
        {name: model_sha256(model) for name, model in models.items()},
        task,
        compared,
        measures=_measures_of(task, metric, delta, 1 if better == "higher" else -1),
        looks=looks,
        alpha=alpha,
        question=question or f"Does it make a difference: {', '.join(builders)}?",
        settings={**numbers, "fit": json.dumps(fit or {}, sort_keys=True, default=str)},
    )
    del models
    directory = pathlib.Path(dir)
    with locked_study(directory):
        engine = InProcess()
        plan = runner.prepare(plan, directory, engine, look=lambda *_: compared.facts)
        runner.finish_study(
            plan,
            directory,
            engine,
            configure=lambda run: RunTask(
                plan, run, directory, builders[run.cell], compared, dict(fit or {})
            ),
            work=train_run,
            bar=progress,
        )
        from bnhead.report import build as build_report

        build_report(directory)
    return read_verdict(directory)


@dataclass(frozen=True)
class ComparedData:
    """The data of a comparison.

    Attributes:
        train: arrays `(x, y)`, or `(seed, epoch) -> batches`.
        x, y: test arrays, in their order.
        facts: name, sizes, fingerprints and number of classes.
    """

    train: Any
    x: Any
    y: np.ndarray
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, data: Any, batch_size: int) -> "ComparedData":
        """The data in the forms of `compare`.

        Raises:
            UsageError: data in no such form.
        """
        if isinstance(data, str):
            return cls._named(data, batch_size)
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise UsageError(
                f"data must be (train, test) or the name of a data set, got {type(data).__name__}"
            )
        train, test = data
        x, y = _arrays("test", test)
        if not _is_dataset(train):
            train = _arrays("train", train)
            size, digest = len(train[1]), _sha256(train)
            return cls(train, x, y, _facts("arrays", size, digest, x, y))
        size, digest = _labels_sha256(train)
        return cls(lambda seed, epoch: train, x, y, _facts("tf.data", size, digest, x, y))

    @classmethod
    def _named(cls, name: str, batch_size: int) -> "ComparedData":
        from bnhead.data import load
        from bnhead.data.split import Recipe

        data = load(name)
        x, y = _arrays("test", data.test.evaluation_batches(256))

        def epoch_of(seed, epoch):
            return data.train.training_batches(batch_size, 1, stream(seed, epoch), Recipe())

        facts = _facts(data.name, data.train.size, data.train.fingerprint(), x, y)
        return cls(epoch_of, x, y, {**facts, "test_sha256": data.test.fingerprint()})

    def epoch(self, seed: int, epoch: int, batch_size: int) -> Any:
        """The training batches of one epoch: the same for all heads of a seed."""
        if callable(self.train):
            return self.train(seed, epoch)
        order = np.random.default_rng(stream(seed, "order", epoch)).permutation(len(self.train[1]))
        return _Batches(*self.train, order, batch_size)


class _Batches(keras.utils.PyDataset):
    """Batches of arrays in a fixed order, the last partial batch included."""

    def __init__(self, x: Any, y: np.ndarray, order: np.ndarray, batch_size: int):
        super().__init__()
        self._x, self._y, self._order, self._batch_size = x, y, order, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._x), self._y[rows]


@dataclass(frozen=True)
class RunTask:
    """Everything that one run needs."""

    plan: Plan
    run: PlannedRun
    directory: pathlib.Path
    build: Callable[[int], keras.Model]
    data: ComparedData
    fit: Mapping[str, Any]


class InProcess:
    """An engine that does jobs in this process, one after the other.

    The work of a run yields its progress and returns its result; any other work is a function.
    """

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        for job in jobs:
            yield Event(job, "started", {})
            try:
                result = job.work(job.config, lambda detail: None)
                if isinstance(result, Iterator):
                    result = yield from self._progress(job, result)
            except Exception as error:
                detail = {"error": type(error).__name__, "message": " ".join(str(error).split())}
                yield Event(job, "failed", {**detail, "traceback": ""})
            else:
                yield Event(job, "done", result)

    def _progress(self, job: Job, work: Iterator[dict]) -> Iterator[Event]:
        while True:
            try:
                yield Event(job, "progress", next(work))
            except StopIteration as end:
                return end.value


def train_run(task: RunTask, report: Callable[[dict], None]) -> Iterator[dict[str, Any]]:
    """Trains one model and writes its run directory. Yields its progress; returns status and metric."""
    plan, data, seed = task.plan, task.data, task.run.seed
    settings = plan.run_settings(task.run)
    directory = RunDirectory(task.directory / "runs" / task.run.id)
    with directory.claimed(settings):
        directory.begin(settings)
        environment = describe_environment()
        directory.write("environment.json", environment)
        directory.write("status.json", {"status": "running"})
        model = _built(task.run.cell, task.build, seed, data)
        if model_sha256(model) != settings["model_sha256"]:
            raise UsageError(f"build returns another model for head {task.run.cell!r} and seed {seed}")
        _seed(seed, "fit")
        rows, probe = [], _probe_of(model, data)
        for epoch in range(settings["epochs"]):
            batches_ = data.epoch(seed, epoch, settings["batch_size"])
            history = model.fit(batches_, epochs=1, verbose=0, shuffle=False, **task.fit).history
            row = {"epoch": epoch + 1, **{key: float(values[-1]) for key, values in history.items()}}
            predictions = _predict(model, probe, data)
            rows.append(row | _test_figures(model, data, predictions, plan, probe))
            directory.write_history(rows)
            yield {"share": (epoch + 1) / settings["epochs"]}
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


def model_sha256(model: keras.Model) -> str:
    """The hash of a model's architecture and of how it is compiled.

    Layers' names and random seeds do not count: Keras numbers unnamed layers on from model to model, and the
    initial weights of two seeds differ.
    """
    names = {layer.name: f"layer{n}" for n, layer in enumerate(model._flatten_layers())}

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            numbered = value.get("name")
            if isinstance(numbered, str) and numbered not in names:  # of an optimizer: adam_3
                value = {**value, "name": re.sub(r"_\d+$", "", numbered)}
            return {names.get(key, str(key)): plain(item) for key, item in value.items() if key != "seed"}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float):
            return value
        return names.get(value, value) if isinstance(value, str) else type(value).__name__

    try:
        config = {"model": model.get_config(), "compiled": model.get_compile_config()}
    except (NotImplementedError, TypeError, ValueError):  # a subclassed model need not have a config
        config = {"model": type(model).__name__}
    content = plain(config), [list(weight.shape) for weight in model.weights]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _builders(
    build: Build | None, heads: Sequence[str], builders: Mapping[str, Callable] | None, control: str
) -> dict[str, Callable[[int], keras.Model]]:
    """Name -> function of the seed, the control first."""
    if (build is None) == (builders is None):
        raise UsageError("compare needs build and heads, or builders")
    if builders is None:
        heads = [heads] if isinstance(heads, str) else list(heads)
        builders = {head: lambda seed, head=head: build(head, seed) for head in heads}
        if len(builders) < len(heads):
            raise UsageError(f"heads must all differ, got {', '.join(heads)}")
    if len(builders) < 2:
        raise UsageError(f"heads must be at least 2, a control and another, got {len(builders)}")
    control = control or next(iter(builders))
    if control not in builders:
        raise UsageError(f"control must be one of {', '.join(builders)}, got {control!r}")
    return {control: builders[control], **builders}


def _built(name: str, builder: Callable[[int], Any], seed: int, data: ComparedData) -> keras.Model:
    """The model of a builder, with all its weights.

    Raises:
        UsageError: it is no compiled model.
    """
    _seed(seed, "build")
    model = builder(seed)
    if not isinstance(model, keras.Model) or not model.compiled:
        text = "a model that is not compiled" if isinstance(model, keras.Model) else type(model).__name__
        raise UsageError(f"build must return a compiled keras.Model; for {name!r} it returned {text}")
    if getattr(model, "inputs", None) is None:  # a subclassed model has its weights after its first call
        model.predict(_first(data.x, 2), verbose=0)
    return model


def _seed(seed: int, purpose: str) -> None:
    keras.utils.set_random_seed(stream(seed, purpose))
    random.seed(stream(seed, purpose))


def _task_of(model: keras.Model, data: ComparedData) -> str:
    """ "classification" where the labels are classes of the model's outputs, else "regression"."""
    outputs = model.predict(_first(data.x, 2), verbose=0)  # a subclassed model declares no output shape
    return "classification" if data.facts["classes"] and outputs.shape[-1] > 1 else "regression"


def _measures_of(task: str, metric: str, delta: float, better: int) -> list[PlannedMeasure]:
    name = metric or PRIMARY[task]
    if name not in MEASURES:
        name = name if name.startswith("test_") else f"test_{name}"
        if not delta:
            raise UsageError(f"delta must be set for metric {metric!r}: the least difference that matters")
    elif name not in (PRIMARY[task], *SECONDARY[task]):
        raise UsageError(f"metric {metric!r} is not measured for {task}")
    others = [other for other in (PRIMARY[task], *SECONDARY[task]) if other != name]
    return [PlannedMeasure.of(name, delta, better), *map(PlannedMeasure.of, others)]


def _plan_of(
    models: Mapping[str, str],
    task: str,
    data: ComparedData,
    *,
    measures: Sequence[PlannedMeasure],
    looks: tuple[int, ...],
    alpha: float,
    question: str,
    settings: Mapping[str, Any],
) -> Plan:
    for problem in number_problems(looks, measures, alpha):
        raise UsageError(problem)
    cells = [
        Cell(name, name, _placement(name), {}, {"head": name, "model_sha256": digest})
        for name, digest in models.items()
    ]
    facts = {f"data_{key}": data.facts[key] for key in ("train_sha256", "test_sha256")}
    primary = measures[0].name
    plan = Plan(
        study="compare",
        question=question,
        primary=primary if primary.startswith("test_") else f"test_{PRIMARY[task]}",
        measures=tuple(measures),
        alpha=alpha,
        looks=looks,
        seeds=tuple(range(looks[-1])),
        cells=tuple(cells),
        comparisons=tuple(comparisons_of(cells, len(cells))),
        settings={"dataset": data.facts["name"], "task": task, **settings, **facts},
        runs=(),
        code={"bnhead": __version__, "source_sha256": source_sha256()},
        threads=0,  # those of the calling process
    )
    return with_runs(plan)


def _placement(name: str) -> str:
    """Positions of the batch norms of a head; "" for a name that is no head."""
    try:
        return ", ".join(head_texts.parse(name).placement)
    except head_texts.HeadError:
        return ""


def _probe_of(model: keras.Model, data: ComparedData) -> Probe | None:
    """Counts the last activation before the output; None for a model without one."""
    try:
        probe = Probe(model)
        probe.prepare((_first(data.x, 2), data.y[:2]))
    except UsageError:
        return None
    return probe


def _predict(model: keras.Model, probe: Probe | None, data: ComparedData) -> Predictions:
    if probe is None:
        outputs = np.asarray(model.predict(data.x, verbose=0))
        silent, layers = np.full((len(data.y), 1), np.nan), ("none",)
    else:
        outputs, silent, _ = probe.per_input(data.x)
        layers = tuple(_unnumbered(site.name) for site in probe.sites)
    outputs = outputs.reshape(len(data.y), -1).astype("float64")
    if data.facts["classes"] and (outputs >= 0).all() and np.allclose(outputs.sum(1), 1, atol=1e-3):
        outputs = np.log(np.maximum(outputs, 1e-30))  # logits of probabilities
    return Predictions(_class_numbers(data.y), silent.astype("float32"), layers, outputs.astype("float32"))


def _test_figures(
    model: keras.Model, data: ComparedData, predictions: Predictions, plan: Plan, probe: Probe | None
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
    if probe is not None:
        census = probe.count(_first(data.x, MOST_COUNTED))
        census.layers = {_unnumbered(name): counts for name, counts in census.layers.items()}
        figures |= census.figures(with_sample=True)
    return figures


def _arrays(name: str, data: Any) -> tuple[Any, np.ndarray]:
    """Inputs and labels as arrays."""
    if _is_dataset(data):
        parts = [(keras.tree.map_structure(np.asarray, x), np.asarray(y)) for x, y in batches(data, 256)]
        if not parts:
            raise UsageError(f"{name} data must have at least one batch")
        x = keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *(x for x, _ in parts))
        return x, np.concatenate([y for _, y in parts])
    if not isinstance(data, tuple | list) or len(data) != 2 or data[1] is None:
        raise UsageError(f"{name} data must be (x, y) or a tf.data.Dataset, got {type(data).__name__}")
    x, y = keras.tree.map_structure(np.asarray, data[0]), np.asarray(data[1])
    if (sizes := {len(leaf) for leaf in keras.tree.flatten(x)}) != {len(y)}:
        raise UsageError(f"{name} data must have as many labels as inputs, got {len(y)} and {max(sizes)}")
    return x, y


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "element_spec")


def _unnumbered(layer: str) -> str:
    """A layer's name without the number that Keras gives unnamed ones, which goes on from model to model."""
    return re.sub(r"_\d+(?=[/#]|$)", "", layer)


def _first(x: Any, number: int) -> Any:
    return keras.tree.map_structure(lambda array: array[:number], x)


def _class_numbers(y: np.ndarray) -> np.ndarray:
    """Class numbers of one-hot labels; other labels as they are."""
    if y.ndim == 2 and y.shape[1] > 1 and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        return y.argmax(1)
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _facts(name: str, size: int, digest: str, x: Any, y: np.ndarray) -> dict[str, Any]:
    labels = _class_numbers(y)
    is_class = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    return {
        "name": name,
        "train": int(size),
        "test": len(y),
        "train_sha256": digest,
        "test_sha256": _sha256((x, y)),
        "classes": int(labels.max()) + 1 if is_class else None,
    }


def _sha256(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in keras.tree.flatten(arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _labels_sha256(dataset: Any) -> tuple[int, str]:
    """Number of examples, and the hash of their shapes and of the labels' counts.

    A data set may shuffle and augment, so that neither order nor pixels are the same twice.
    """
    counts: dict[bytes, int] = {}
    for _, y in batches(dataset, 256):
        for row in np.asarray(y):
            counts[row.tobytes()] = counts.get(row.tobytes(), 0) + 1
    content = [str(dataset.element_spec), sorted((key.hex(), n) for key, n in counts.items())]
    return sum(counts.values()), hashlib.sha256(json.dumps(content).encode()).hexdigest()
