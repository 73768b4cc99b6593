"""Failure is a result: what is not finite, where that began, and what never learned."""

import time
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from bnhead.data import DataSet
from bnhead.graph import taps
from bnhead.training.feed import Feed
from bnhead.training.state import captured, fit, restore, weights_are_finite

LOOKED_AT = 1.0  # seconds between two looks at all weights
MARGIN = 0.01  # of the constant answer's loss: by so much must a loss be lower, to have learned


class Finite(keras.callbacks.Callback):
    """Stops training where the loss, or a weight, is not finite; a gradient that is not spoils its weight.

    The loss is looked at after every execution, all weights every second and at the end of an epoch:
    TensorFlow's CPU kernels can turn NaN into 0 on the way to the loss.

    Args:
        seconds: time between two looks at the weights; 0 looks after every execution.

    Attributes:
        broken: whether training was stopped.
        step: the batch of the epoch after which it was, from 0.
    """

    def __init__(self, seconds: float = LOOKED_AT):
        super().__init__()
        self._seconds, self._looked = seconds, time.monotonic()
        self.broken, self.step = False, 0

    def on_train_batch_end(self, batch, logs=None):
        self.step = batch
        self._look(logs, every=self._seconds)

    def on_epoch_end(self, epoch, logs=None):
        self._look(logs, every=0)

    def _look(self, logs: Mapping, every: float) -> None:
        due = time.monotonic() - self._looked >= every
        if not np.isfinite(float(logs["loss"])) or (due and not weights_are_finite(self.model)):
            self.broken = self.model.stop_training = True
        if due:
            self._looked = time.monotonic()


class Learning(keras.callbacks.Callback):
    """Stops a training whose loss, some epochs in, was never below that of the best constant answer.

    Losses are taken without what a backbone's own regularizers add, by its weights as they then are.

    Args:
        constant: that answer's loss.
        within: epochs that training has for it; 0 never stops.
        losses: gives the losses of the epochs done.

    Attributes:
        failed: whether training was stopped.
    """

    def __init__(self, constant: float, within: int, losses: Callable[[], Sequence[float]]):
        super().__init__()
        self._lowest, self._within, self._losses = constant * (1 - MARGIN), within, losses
        self.failed = False

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self._within and min(self._losses()) - penalty(self.model) > self._lowest:
            self.failed = self.model.stop_training = True


def penalty(model: keras.Model) -> float:
    """What the regularizers of a model's weights add to its loss."""
    weights = [weight for weight in model.trainable_weights if weight.regularizer is not None]
    return float(sum(ops.convert_to_numpy(weight.regularizer(weight)) for weight in weights))


def constant_loss(task: str, dataset: DataSet, mixup: float = 0.0) -> float:
    """The training loss of the best answer that does not look at the image.

    It is the entropy of the classes; of a sigmoid for each class, the mean entropy of each; of numbers in
    units of their deviation, 1. Mixup leaves the entropies, since a mixture's loss is the mixture of the
    losses; of numbers' variance it leaves 1 - 2 E[share (1 - share)], with a share from Beta(mixup, mixup).
    """
    if task == "regression":
        return (mixup + 1) / (2 * mixup + 1)
    share = np.asarray(dataset.class_counts(), float) / dataset.train.size
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.nan_to_num(-share * np.log(share))
        other = np.nan_to_num(-(1 - share) * np.log(1 - share))
    return float((surprise + other).mean() if task == "multilabel" else surprise.sum())


class _Until(keras.callbacks.Callback):
    """Keeps the state before each execution, and stops behind the first that leaves something not finite."""

    def __init__(self):
        super().__init__()
        self.before, self.step, self.found = {}, 0, False

    def on_train_batch_begin(self, batch, logs=None):
        self.before = captured(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(float(logs["loss"])) or not weights_are_finite(self.model):
            self.found = self.model.stop_training = True


def locate(model: keras.Model, arrays: Mapping[str, np.ndarray], feed: Feed, step: int) -> dict:
    """Trains again from a state that was sound, step by step, up to the first step that broke it.

    Args:
        model: the model; it is left with the state before that step.
        arrays: the sound state.
        feed: the run's batches; with several replicas the step alone is searched for.
        step: steps done in the sound state.

    Returns:
        `step`, from 1, of the whole training; `epoch`, from 1; `where`: "input", "activation", "loss" or
        "gradient", the first of them that is not finite in that step; `layer`: of an activation the first
        layer in the model's order, of a gradient the layer nearest to the output whose weights it spoiled.
        Step and epoch alone where nothing breaks again, which on a CPU does not happen.
    """
    until = _Until()
    restore(model, arrays)
    model.steps_per_execution, model.train_function = 1, None
    fit(model, feed, [until], step)
    broken = step + until.step
    place = {"step": broken, "epoch": (broken - 1) // feed.steps + 1}
    if not until.found or feed.replicas.number > 1:
        restore(model, until.before if until.found else arrays)
        return place
    spoiled = [variable.path for variable in model.trainable_variables if not _finite(variable)]
    restore(model, until.before)
    inputs, targets = next(iter(feed.train(*divmod(broken - 1, feed.steps))))[:2]
    cause = _first_in(model, inputs, targets) or {
        "where": "gradient",
        "layer": spoiled[-1].rpartition("/")[0] if spoiled else "",
    }
    restore(model, until.before)  # the look at the batch has moved averages and random states
    return {**place, **cause}


def _first_in(model: keras.Model, inputs, targets) -> dict | None:
    """What is not finite first, on the way of a batch from the inputs to the loss; None where all is."""
    if not all(_finite(x) for x in keras.tree.flatten(inputs)):
        return {"where": "input", "layer": ""}
    with keras.StatelessScope(), taps.opened(model) as opened:
        outputs = model(inputs, training=True)
        loss = model.compute_loss(inputs, targets, outputs)
    seen = opened.passes[0]
    for tap in sorted([*seen.activations, *seen.outputs], key=lambda tap: tap.order):
        # a rectifier may turn NaN into 0, so what goes into it is looked at too
        if not all(_finite(value) for value in (tap.before, tap.after) if value is not None):
            return {"where": "activation", "layer": tap.path or tap.name}
    return None if np.isfinite(float(loss)) else {"where": "loss", "layer": ""}


def _finite(values) -> bool:
    array = ops.convert_to_numpy(values)
    return array.dtype.kind not in "fV" or bool(np.isfinite(array.astype("float32")).all())
