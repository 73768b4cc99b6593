"""How fast a model trains and evaluates here, from a few steps."""

import dataclasses
import math
import time
from typing import NamedTuple

import keras
import numpy as np

from bnhead.frozen.extraction import BATCH, predictor
from bnhead.training.backbone import FeatureData
from bnhead.training.feed import Feed
from bnhead.training.state import fit

STEPS, SECONDS = 20, 5.0  # timed: so many steps, or as many as take so many seconds


class Pace(NamedTuple):
    """Seconds of a repeated computation.

    Attributes:
        first: of the first execution, beyond `each`: tracing and compilation.
        each: of a step, or of an evaluation; NaN if the first execution is the only one.
    """

    first: float
    each: float


class Clock(keras.callbacks.Callback):
    """Records time and number of steps after each execution, and stops after a few.

    Attributes:
        started: time at the beginning.
        times: after each execution.
        steps: done by then.
    """

    def __init__(self):
        super().__init__()
        self.started, self.times, self.steps = time.perf_counter(), [], []
        self._first = self._count = 0

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self._count += batch + 1 - self._first
        if logs:
            float(logs["loss"])  # waits for the device
        self.times.append(time.perf_counter())
        self.steps.append(self._count)
        if self._count - self.steps[0] >= STEPS or self.times[-1] - self.times[0] > SECONDS:
            self.model.stop_training = True


def of_training(model: keras.Model, feed: Feed) -> Pace:
    """The pace of a training step. The model is left trained by some steps."""
    clock = Clock()
    epochs = min(feed.epochs, math.ceil((model.steps_per_execution + STEPS) / feed.steps))
    fit(model, dataclasses.replace(feed, epochs=epochs), [clock])
    first = clock.times[0] - clock.started
    if len(clock.times) < 2:
        return Pace(first, float("nan"))
    each = (clock.times[-1] - clock.times[0]) / (clock.steps[-1] - clock.steps[0])
    return Pace(max(0.0, first - each * clock.steps[0]), each)


def of_extraction(data: FeatureData) -> Pace:
    """The pace of computing the features of all images, `each`."""
    images = np.zeros((BATCH, *data.images.shape), np.uint8)
    predict, times = predictor(data.extractor), [time.perf_counter()]
    for _ in range(2):
        predict(images)
        times.append(time.perf_counter())
    first, second = np.diff(times).tolist()
    number = sum(len(split.images) for split in data.splits.values())
    return Pace(max(0.0, first - second), second * number / BATCH)


def of_evaluation(model: keras.Model, feed: Feed) -> Pace:
    """The pace of evaluating the test split and counting on the probe set, equally long per input."""
    test = feed.data.test
    timed = min(test.size, 1024)
    data = dataclasses.replace(feed.data, test=test.take(np.arange(timed)))
    batches = dataclasses.replace(feed, data=data).test()
    times = [time.perf_counter()]
    for _ in range(2):
        model.evaluate(batches, verbose=0)
        times.append(time.perf_counter())
    first, second = np.diff(times).tolist()
    inputs = test.size + (0 if feed.probes_every_test_image else min(test.size, feed.probe_examples))
    return Pace(max(0.0, first - second), second * inputs / timed)
