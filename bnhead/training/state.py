"""The state of a run between two steps: what a checkpoint holds, taken from a model and put back into one."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bnhead.errors import Interrupted, UsageError
from bnhead.graph import free_name
from bnhead.runs import checkpoints
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.training.config import TrainConfig
from bnhead.training.feed import Feed
from bnhead.training.signals import Pending


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All variables of a compiled model: weights, random states, the optimizer's, the metrics'."""
    model.optimizer.build(model.trainable_variables)
    found = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    unique = {id(variable): variable for variable in found}.values()
    # Keras numbers what has no name of its own (`dense_3`) through all that a process makes
    names = [re.sub(r"_\d+(?=_|$)", "", variable.name) for variable in unique]
    return {f"{i:05}/{name}": v for i, (name, v) in enumerate(zip(names, unique, strict=True))}


def captured(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies of the values of `variables`."""
    return {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in variables(model).items()}


def restore(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives `variables` the values that were captured.

    Raises:
        ValueError: they are of another model; nothing has been changed.
    """
    there = variables(model)
    for name in {**there, **arrays}:
        if name not in there or name not in arrays or tuple(there[name].shape) != arrays[name].shape:
            raise ValueError(f"it is of another net: {name} is not in both, or of two shapes")
    for name, variable in there.items():
        array = arrays[name]
        if array.dtype.kind == "V":  # bfloat16, whose name NumPy's files do not hold
            array = array.view(ops.convert_to_numpy(variable).dtype)
        variable.assign(array)


def weights_are_finite(model: keras.Model) -> bool:
    """Whether all weights are; moving averages, which are weights too, among them."""
    sums = [ops.sum(ops.abs(ops.cast(weight, "float32"))) for weight in model.weights]
    return bool(np.isfinite(ops.convert_to_numpy(ops.stack(sums))).all())


class Stateful(Protocol):
    """What a checkpoint keeps beside the model: a callback, or anything else, with these two methods."""

    def state(self) -> dict:
        """Plain data for JSON."""

    def resume(self, state: dict) -> None:
        """Goes on from what `state` gave."""


class Saver(keras.callbacks.Callback):
    """Writes checkpoints every few seconds, between two steps, and after the last epoch; goes last of all.

    None is written of weights that are not finite: `locate` and a run that goes on begin with sound ones.

    Args:
        directory: the run's directory.
        config: the run's settings.
        feed: its batches.
        stateful: what else may have a state; those that have none are passed over.
        resumed: the checkpoint that training goes on from, whose variables the model has already.
        pending: tells of a signal; a checkpoint is then written and training ends.

    Attributes:
        latest: the newest checkpoint; before the first the state that training began with.
    """

    def __init__(
        self,
        directory: RunDirectory,
        config: TrainConfig,
        feed: Feed,
        stateful: Sequence[Any],
        resumed: Checkpoint | None,
        pending: Pending,
    ):
        super().__init__()
        self._directory, self._settings = directory, config.settings()
        self._steps, self._total, self._first = feed.steps, feed.epochs * feed.steps, feed.replicas.first
        self._seconds, self._pending = config.checkpoint_seconds, pending
        self._stateful, self._resumed = _by_class(stateful), resumed
        self.latest, self._epoch, self._done, self._saved_at = resumed, 0, 0, time.monotonic()

    def set_model(self, model):
        """Resumes the others, who know their model by now: Keras tells it this callback last."""
        super().set_model(model)
        states = self._resumed.records if self._resumed else {}
        for name, one in self._stateful.items():
            if name in states:
                one.resume(states[name])

    def on_train_begin(self, logs=None):
        if self.latest is None:
            self.latest = Checkpoint(self._settings, 0, captured(self.model), {})

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._resumed is not None and self._resumed.step % self._steps:
            restore(self.model, self._resumed.arrays)  # Keras has just reset the metrics of half an epoch
        self._resumed = None

    def on_train_batch_end(self, batch, logs=None):
        self._done = self._epoch * self._steps + min(batch + 1, self._steps)
        if self._done % self._steps:  # an epoch's last step is saved with its evaluation and its counts
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self._save_if_due()

    def _save_if_due(self) -> None:
        due = time.monotonic() - self._saved_at >= self._seconds or self._done == self._total
        if (due or self._pending.signal) and not self.model.stop_training:
            if weights_are_finite(self.model):
                self._save()
            if self._pending.signal:
                raise Interrupted(self._pending.signal)

    def _save(self) -> None:
        states = {name: one.state() for name, one in self._stateful.items()}
        checkpoint = Checkpoint(self._settings, self._done, captured(self.model), states)
        if self._first:
            try:
                checkpoints.save(self._directory, checkpoint)
            except TypeError as error:
                raise UsageError(f"callbacks: state() must return plain data for JSON: {error}") from error
        self.latest, self._saved_at = checkpoint, time.monotonic()


def _by_class(stateful: Sequence[Any]) -> dict[str, Stateful]:
    """Those that have a state, by the names of their classes, which are equal in every process."""
    named: dict[str, Stateful] = {}
    for one in stateful:
        if hasattr(one, "state") and hasattr(one, "resume"):
            named[free_name(type(one).__name__, named)] = one
    return named


class _Callbacks(keras.callbacks.CallbackList):
    """Callbacks that see one training where `fit` is called twice: one beginning, one end, whole epochs."""

    offset = 0  # steps of the first epoch that were done before

    def on_train_begin(self, logs=None):
        """Nothing: `begin` has told them."""

    def on_train_end(self, logs=None):
        """Nothing: `end` will."""

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.offset, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.offset, logs)

    def begin(self):
        super().on_train_begin()

    def end(self):
        super().on_train_end()


def fit(
    model: keras.Model,
    feed: Feed,
    callbacks: Sequence[keras.callbacks.Callback],
    step: int = 0,
    test: tf.data.Dataset | None = None,
) -> None:
    """`model.fit` from any step on: first the rest of an epoch, then whole epochs.

    Args:
        model: a compiled model, with the state that it had after `step` steps.
        feed: the run's batches.
        callbacks: they see epochs, and steps of an epoch, numbered as in a training that never stopped.
        step: steps done.
        test: what is evaluated after each epoch.
    """
    steps, epochs = feed.steps, feed.epochs
    seen = _Callbacks(list(callbacks), model=model, add_history=True, verbose=0, epochs=epochs, steps=steps)
    epoch, seen.offset = divmod(step, steps)
    options = {"validation_data": test, "shuffle": False, "verbose": 0, "callbacks": seen}
    model.stop_training = False
    seen.begin()
    if seen.offset:
        rest = {"initial_epoch": epoch, "epochs": epoch + 1, "steps_per_epoch": steps - seen.offset}
        model.fit(feed.train(epoch, seen.offset), **rest, **options)
        epoch, seen.offset = epoch + 1, 0
    if epoch < epochs and not model.stop_training:
        model.fit(feed.train(epoch, 0), initial_epoch=epoch, epochs=epochs, steps_per_epoch=steps, **options)
    seen.end()
