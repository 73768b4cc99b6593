"""The state of a run between two steps: saved in checkpoints, restored, and trained on from there."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from bnhead.errors import Interrupted, UsageError
from bnhead.graph import free_name
from bnhead.runs.checkpoints import (
    FOLDER,
    Checkpoint,
    decode_checkpoint,
    encode_checkpoint,
    read_content,
    save_checkpoint,
)
from bnhead.runs.directory import RunDirectory
from bnhead.training.feed import Feed
from bnhead.training.signals import Pending

BEST = f"{FOLDER}/best"  # the file with the state of the best epoch


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All variables of a compiled model: weights, random states, the optimizer's, the metrics'."""
    model.optimizer.build(model.trainable_variables)
    listed = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    unique = {id(variable): variable for variable in listed}.values()
    # Keras numbers unnamed objects (`dense_3`) over the whole process, so the number is left out
    names = [re.sub(r"_\d+(?=_|$)", "", variable.name) for variable in unique]
    return {f"{i:05}/{name}": v for i, (name, v) in enumerate(zip(names, unique, strict=True))}


def captured(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies of the values of `variables`."""
    return {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in variables(model).items()}


def restore(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Assigns captured values to `variables`.

    Raises:
        ValueError: the values are of another model; nothing has been changed.
    """
    targets = variables(model)
    for name in {**targets, **arrays}:
        if name not in targets or name not in arrays or tuple(targets[name].shape) != arrays[name].shape:
            raise ValueError(f"it is of another net: {name} is not in both, or of two shapes")
    for name, variable in targets.items():
        array = arrays[name]
        if array.dtype.kind == "V":  # bfloat16, whose name NumPy's files do not hold
            array = array.view(keras.ops.convert_to_numpy(variable).dtype)
        variable.assign(array)


class Stateful(Protocol):
    """An object whose state is saved with a checkpoint: a callback, or anything else with these methods."""

    def state(self) -> dict:
        """Plain data for JSON."""

    def resume(self, state: dict) -> None:
        """Restores what `state` returned."""


class Saver(keras.callbacks.Callback):
    """Writes checkpoints every few seconds, between two steps, and after the last epoch. The last callback.

    A state with a weight that is not finite is not saved: `locate` and a resumed run start from a sound one.

    Args:
        directory: the run's directory.
        settings: the run's settings.
        feed: its batches.
        stateful: objects that may have a state; those without one are ignored.
        resumed: the checkpoint that is in the model; None for a run from the beginning.
        pending: after a signal, a checkpoint is written and training ends.
        seconds: between two checkpoints.
        check: returns the path of a weight that is not finite, or "".

    Attributes:
        latest: the newest checkpoint; before the first one the initial state.
    """

    def __init__(
        self,
        directory: RunDirectory,
        settings: dict,
        feed: Feed,
        stateful: Sequence[Any],
        resumed: Checkpoint | None,
        pending: Pending,
        seconds: float,
        check: Callable[[], str],
    ):
        super().__init__()
        self._directory, self._settings = directory, settings
        self._steps, self._total, self._start = feed.steps, feed.epochs * feed.steps, feed.first_step
        self._pending, self._seconds, self._resumed, self._check = pending, seconds, resumed, check
        self._stateful: dict[str, Stateful] = {}  # by class name, which is equal in every process
        for item in stateful:
            if hasattr(item, "state") and hasattr(item, "resume"):
                self._stateful[free_name(type(item).__name__, self._stateful)] = item
        self._epoch, self._step, self._saved_at = 0, 0, time.monotonic()
        self._keep(resumed)

    def set_model(self, model):
        """Restores the states of the others. Keras calls this callback last, so they have their model."""
        super().set_model(model)
        states = self._resumed.records if self._resumed else {}
        for name, item in self._stateful.items():
            if name in states:
                item.resume(states[name])

    def on_train_begin(self, logs=None):
        if self.latest is None:
            self.latest = Checkpoint(self._settings, self._start, captured(self.model), {})

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._resumed is not None and self._resumed.step % self._steps:
            restore(self.model, self._resumed.arrays)  # Keras has just reset the metrics of half an epoch
        self._resumed = None

    def on_train_batch_end(self, batch, logs=None):
        self._step = self._epoch * self._steps + min(batch + 1, self._steps)
        if self._step % self._steps:  # an epoch's last step is saved with its evaluation and its counts
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self._save_if_due()

    def _save_if_due(self) -> None:
        due = time.monotonic() - self._saved_at >= self._seconds or self._step == self._total
        if self.model.stop_training or not (due or self._pending.signal):
            return
        if not self._check():
            states = {name: item.state() for name, item in self._stateful.items()}
            checkpoint = Checkpoint(self._settings, self._step, captured(self.model), states)
            try:
                save_checkpoint(self._directory, checkpoint)
            except TypeError as error:
                raise UsageError(f"callbacks: state() must return plain data for JSON: {error}") from error
            self._saved_at = time.monotonic()
            self._keep(checkpoint)
        if self._pending.signal:
            raise Interrupted(self._pending.signal, self._pending.kept)

    def _keep(self, checkpoint: Checkpoint | None) -> None:
        """Records a checkpoint that is on the disk."""
        self.latest = checkpoint
        if checkpoint is not None:
            self._pending.kept = f"step {checkpoint.step} of {self._total} is saved; the same command goes on"


class Best(keras.callbacks.Callback):
    """Adds `validation_...` figures to the logs, and saves the state of the best epoch so far.

    Args:
        validation: batches of the validation split, as the model takes them.
        primary: name of the metric that decides; the higher the better.
        directory: the run's directory.
        settings: the run's settings.

    Attributes:
        primary: as given.
        record: `epoch`, from 1, and `value` of the best epoch so far; empty before the first.
    """

    def __init__(self, validation: tf.data.Dataset, primary: str, directory: RunDirectory, settings: dict):
        super().__init__()
        self._validation, self.primary = validation, primary
        self._directory, self._settings = directory, settings
        self.record: dict = {}

    def state(self) -> dict:
        """The state for a checkpoint."""
        return self.record

    def resume(self, state: dict) -> None:
        """Restores what `state` returned."""
        self.record = dict(state)

    def on_epoch_end(self, epoch, logs=None):
        figures = self.model.evaluate(self._validation, verbose=0, return_dict=True)
        logs.update({f"validation_{name}": value for name, value in figures.items()})
        value = float(figures[self.primary])
        if self.model.stop_training or not value > self.record.get("value", float("-inf")):
            return
        self.record = {"epoch": epoch + 1, "value": value}
        state = Checkpoint(self._settings, epoch + 1, captured(self.model), {})
        self._directory.replace(BEST, lambda path: path.write_bytes(encode_checkpoint(state)))


def best_state(directory: RunDirectory) -> Checkpoint:
    """The state of the best epoch.

    Raises:
        OSError, ValueError: the file cannot be read, or is damaged.
    """
    return decode_checkpoint(read_content(directory.path / BEST))


class _Callbacks(keras.callbacks.CallbackList):
    """Callbacks that see one training although `fit` runs twice: one beginning, one end, whole epochs."""

    offset = 0  # steps of the first epoch that were done before the run was resumed

    def on_train_begin(self, logs=None):
        """Does nothing: `begin` calls the callbacks."""

    def on_train_end(self, logs=None):
        """Does nothing: `end` calls the callbacks."""

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.offset, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.offset, logs)

    def begin(self):
        super().on_train_begin()

    def end(self):
        super().on_train_end()


def watching(callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, feed: Feed) -> _Callbacks:
    """Callbacks that see a training whose beginning, epochs and end the caller reports."""
    options = {"model": model, "add_history": True, "verbose": 0}
    return _Callbacks(list(callbacks), epochs=feed.epochs, steps=feed.steps, **options)


def fit(
    model: keras.Model,
    feed: Feed,
    callbacks: Sequence[keras.callbacks.Callback],
    step: int = 0,
    test: tf.data.Dataset | None = None,
) -> None:
    """Like `model.fit`, from any step on: first the remainder of an epoch, then whole epochs.

    Args:
        model: a compiled model, in the state after `step` steps.
        feed: the run's batches.
        callbacks: they see epochs, and steps of an epoch, numbered as in an uninterrupted training.
        step: steps done.
        test: evaluated after each epoch.
    """
    steps, epochs = feed.steps, feed.epochs
    relay = watching(callbacks, model, feed)
    epoch, relay.offset = divmod(step, steps)
    options = {"validation_data": test, "shuffle": False, "verbose": 0, "callbacks": relay}
    # An execution of several steps takes what the data has left, so data that end with the epoch can have any
    # number of steps. Otherwise one pipeline makes the batches of all epochs.
    at_a_time = epochs if steps % model.steps_per_execution == 0 else 1
    model.stop_training = False
    relay.begin()
    while epoch < epochs and not model.stop_training:
        number = 1 if relay.offset else min(at_a_time, epochs - epoch)
        model.fit(
            feed.train(epoch, relay.offset, number),
            initial_epoch=epoch,
            epochs=epoch + number,
            steps_per_epoch=steps - relay.offset,
            **options,
        )
        epoch, relay.offset = epoch + number, 0
    relay.end()
