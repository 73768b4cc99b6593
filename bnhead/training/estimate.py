"""`--dry_run`: what a run would be, how large, and how long, from a few steps that leave nothing behind."""

import dataclasses
import math
import time

import keras
import numpy as np

from bnhead import graph
from bnhead.devices.replicas import find
from bnhead.runs.directory import RunDirectory
from bnhead.training.build import decisions, describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.feed import Feed
from bnhead.training.reuse import Reuse
from bnhead.training.run import prepared, shortage_said
from bnhead.training.state import fit

STEPS, SECONDS = 20, 5.0  # timed: so many steps, or steps of so many seconds in all


def rehearse(config: TrainConfig) -> dict:
    """What `train(config)` would do.

    Returns:
        `settings`; `head`, its diagram; `parameters` and of them `trainable`; `steps_per_epoch` and `steps`;
        `bytes`, estimated (`training_bytes`); `seconds_per_step` and `seconds_per_evaluation`, measured;
        `seconds`, estimated from them for all epochs.

    Raises:
        UsageError, DataError, RunDirectoryError, ResourcesError: as `train` does.
    """
    RunDirectory(config.directory).check(config.settings(), overwrite=config.overwrite)
    replicas = find(config)
    with replicas.computing(), shortage_said(config):
        feed, _, model = prepared(config, replicas, Reuse())
        size = training_bytes(model, config.batch_size)
        with feed.data.naming_pictures():
            step = _seconds_per_step(model, feed)
            evaluation = _seconds_per_evaluation(model, feed)
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
    }


def training_bytes(model: keras.Model, batch_size: int) -> int:
    """What training holds in memory at once, about: weights, gradients, momentum, and all layers' outputs.

    Kernels take work space beside it, and compilers keep fewer outputs than there are.
    """
    trainable = sum(math.prod(v.shape) * _width(v.dtype) for v in model.trainable_weights)
    fixed = sum(math.prod(v.shape) * _width(v.dtype) for v in model.non_trainable_weights)
    outputs = sum(
        math.prod(size or batch_size for size in tensor.shape) * _width(tensor.dtype)
        for call in graph.calls(graph.inlined(model))
        for tensor in call.outputs
    )
    return 3 * trainable + fixed + outputs


def _width(dtype: str) -> int:
    return {"bfloat16": 2, "float16": 2, "uint8": 1, "bool": 1, "float64": 8, "int64": 8}.get(dtype, 4)


class _Clock(keras.callbacks.Callback):
    """Takes the time after each execution, with the steps done until then, and stops after a few."""

    def __init__(self):
        super().__init__()
        self.times, self.steps, self._first, self._done = [], [], 0, 0

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self._done += batch + 1 - self._first
        self.times.append(time.perf_counter())
        self.steps.append(self._done)
        if self._done - self.steps[0] >= STEPS or self.times[-1] - self.times[0] > SECONDS:
            self.model.stop_training = True


def _seconds_per_step(model: keras.Model, feed: Feed) -> float:
    """Of the executions after the first, in which the step is compiled."""
    clock = _Clock()
    epochs = min(feed.epochs, math.ceil((model.steps_per_execution + STEPS) / feed.steps))
    fit(model, dataclasses.replace(feed, epochs=epochs), [clock])
    if len(clock.times) < 2:
        return float("nan")
    return (clock.times[-1] - clock.times[0]) / (clock.steps[-1] - clock.steps[0])


def _seconds_per_evaluation(model: keras.Model, feed: Feed) -> float:
    """Of the test split, and of counting on the probe set, which takes as long for each input."""
    test = feed.data.test
    timed = min(test.size, 1024)
    data = dataclasses.replace(feed.data, test=test.take(np.arange(timed)))
    batches = dataclasses.replace(feed, data=data).test()
    model.evaluate(batches, verbose=0)  # compiles it
    start = time.perf_counter()
    model.evaluate(batches, verbose=0)
    inputs = test.size + min(test.size, feed.probe_examples)
    return (time.perf_counter() - start) * inputs / timed


def report(found: dict, config: TrainConfig) -> str:
    """What a person reads of it."""
    settings = [f"  {name:<22}{value}" for name, value in found["settings"].items()]
    rows = [
        ("head", found["head"]),
        *(("", line) for line in found["decisions"]),
        ("parameters", f"{found['parameters']:,}, of them {found['trainable']:,} are trained"),
        ("memory", f"about {found['bytes'] / 2**20:,.0f} MiB, and the kernels' work space"),
        ("steps", f"{found['steps']:,}: {config.epochs} epochs of {found['steps_per_epoch']:,}"),
        ("a step", _step(found["seconds_per_step"])),
        ("time", f"about {_duration(found['seconds'])}, after start-up"),
        ("run", f"{config.directory} (a dry run: nothing was written there)"),
    ]
    return "\n".join(["settings", *settings, "", *(f"{name:<12}{text}" for name, text in rows)])


def _step(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown: the whole run is one execution"
    return f"{seconds * 1000:,.1f} ms here, now"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
