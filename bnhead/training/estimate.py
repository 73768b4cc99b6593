"""`--dry_run`: settings, size and estimated time of a run, from a few steps. Writes nothing."""

import dataclasses
import math
import time

import keras
import numpy as np

from bnhead import graph
from bnhead.devices.replicas import open_replicas
from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import RunDirectory
from bnhead.texts import duration, labelled
from bnhead.training.build import Reuse, decisions, describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.failures import shortage_as_error
from bnhead.training.feed import Feed
from bnhead.training.run import prepare_training
from bnhead.training.state import fit

STEPS, SECONDS = 20, 5.0  # timed: so many steps, or as many as take so many seconds


def estimate(config: TrainConfig) -> dict:
    """Estimates the size and the time of `train(config)`.

    Returns:
        `settings`; `head`, its diagram; `parameters` and of them `trainable`; `steps_per_epoch` and `steps`;
        `bytes`, estimated (`training_bytes`); `seconds_per_step` and `seconds_per_evaluation`, measured;
        `seconds`, estimated from them for all epochs; `obstacle`, why `train` would refuse the run directory,
        empty if it would not.

    Raises:
        UsageError, DataError, ResourcesError: as `train`.
    """
    obstacle = ""
    try:
        RunDirectory(config.directory).check(config.settings(), overwrite=config.overwrite)
    except RunDirectoryError as error:
        obstacle = str(error)
    replicas = open_replicas(
        config.distribution, config.batch_size, sync_bn=config.sync_bn, ghost_sizes=config.ghost_sizes
    )
    with replicas.computing(), shortage_as_error(config.directory, config.batch_size):
        feed, model, _ = prepare_training(config, replicas, Reuse())
        size = training_bytes(model, config.batch_size)
        with feed.data.naming_pictures():
            step = seconds_per_step(model, feed)
            evaluation = seconds_per_evaluation(model, feed)
    return {
        "settings": config.settings(),
        "head": describe_head(config, model),
        "decisions": decisions(config, model),
        "parameters": model.count_params(),
        "trainable": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "steps_per_epoch": feed.steps,
        "steps": feed.steps * feed.epochs,
        "bytes": size,
        "seconds_per_step": step,
        "seconds_per_evaluation": evaluation,
        "seconds": feed.epochs * (feed.steps * step + evaluation),
        "obstacle": obstacle,
    }


def training_bytes(model: keras.Model, batch_size: int) -> int:
    """Estimated memory of training: weights, gradients, momentum, and the outputs of all layers.

    Kernels need work space in addition, and compilers keep fewer outputs.
    """
    trainable = sum(math.prod(v.shape) * _width(v.dtype) for v in model.trainable_weights)
    frozen = sum(math.prod(v.shape) * _width(v.dtype) for v in model.non_trainable_weights)
    outputs = sum(
        math.prod(size or batch_size for size in tensor.shape) * _width(tensor.dtype)
        for call in graph.model_calls(graph.inlined(model))
        for tensor in call.outputs
    )
    return 3 * trainable + frozen + outputs


def _width(dtype: str) -> int:
    return {"bfloat16": 2, "float16": 2, "uint8": 1, "bool": 1, "float64": 8, "int64": 8}.get(dtype, 4)


class _Clock(keras.callbacks.Callback):
    """Records time and number of steps after each execution, and stops after a few."""

    def __init__(self):
        super().__init__()
        self.times, self.steps, self._first, self._count = [], [], 0, 0

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self._count += batch + 1 - self._first
        self.times.append(time.perf_counter())
        self.steps.append(self._count)
        if self._count - self.steps[0] >= STEPS or self.times[-1] - self.times[0] > SECONDS:
            self.model.stop_training = True


def seconds_per_step(model: keras.Model, feed: Feed) -> float:
    """Measured without the first execution, which compiles the step; NaN if the run is one execution."""
    clock = _Clock()
    epochs = min(feed.epochs, math.ceil((model.steps_per_execution + STEPS) / feed.steps))
    fit(model, dataclasses.replace(feed, epochs=epochs), [clock])
    if len(clock.times) < 2:
        return float("nan")
    return (clock.times[-1] - clock.times[0]) / (clock.steps[-1] - clock.steps[0])


def seconds_per_evaluation(model: keras.Model, feed: Feed) -> float:
    """Of evaluating the test split and counting on the probe set, which take equally long per input."""
    test = feed.data.test
    timed = min(test.size, 1024)
    data = dataclasses.replace(feed.data, test=test.take(np.arange(timed)))
    batches = dataclasses.replace(feed, data=data).test()
    model.evaluate(batches, verbose=0)  # compiles it
    start = time.perf_counter()
    model.evaluate(batches, verbose=0)
    inputs = test.size + (0 if feed.probes_every_test_image else min(test.size, feed.probe_examples))
    return (time.perf_counter() - start) * inputs / timed


def format_estimate(estimated: dict, config: TrainConfig) -> str:
    """The text for a terminal."""
    step = estimated["seconds_per_step"]
    step_text = (
        f"{step * 1000:,.1f} ms here, now"
        if math.isfinite(step)
        else "unknown: the whole run is one execution"
    )
    listed = estimated["settings"] if config.verbose else config.changed()
    settings = [f"  {name:<22}{value}" for name, value in estimated["settings"].items() if name in listed]
    if unlisted := len(estimated["settings"]) - len(settings):
        settings.append(f"  {unlisted} at their defaults; --verbose lists them")
    rows = [
        ("head", estimated["head"]),
        *(("", line) for line in estimated["decisions"]),
        ("parameters", f"{estimated['parameters']:,}, of them {estimated['trainable']:,} are trained"),
        ("memory", f"about {estimated['bytes'] / 2**20:,.0f} MiB, and the kernels' work space"),
        ("steps", f"{estimated['steps']:,}: {config.epochs} epochs of {estimated['steps_per_epoch']:,}"),
        ("a step", step_text),
        ("time", f"about {duration(estimated['seconds'])}, after start-up"),
        ("run", f"{config.directory} (a dry run: nothing was written there)"),
    ]
    rows += [("", estimated["obstacle"])] if estimated["obstacle"] else []
    return "\n".join(["settings", *settings, "", labelled(rows, 12)])
