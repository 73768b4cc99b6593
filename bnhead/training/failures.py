"""Failures: values that are not finite, a loss that does not fall, full memory or disk."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bnhead.data import DataSet
from bnhead.errors import ResourcesError
from bnhead.graph import taps
from bnhead.graph.weights import WeightCheck, all_finite
from bnhead.runs import atomic
from bnhead.training.feed import Feed
from bnhead.training.state import captured, fit, restore

CHECKED_EVERY = 1.0  # seconds between two checks of all weights
MARGIN = 0.01  # share by which a loss must be lower, and points by which an accuracy must be higher


@contextlib.contextmanager
def shortage_as_error(workdir: str, batch_size: int) -> Iterator[None]:
    """Converts the errors that report full memory or a full disk to one.

    Raises:
        ResourcesError: in place of such an error.
    """
    try:
        yield
    except ResourcesError:
        raise
    except (MemoryError, tf.errors.ResourceExhaustedError, OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in atomic.FULL or "No space left" in str(error):
            raise ResourcesError(f"workdir {workdir}: the disk is full; the run can go on") from error
        in_memory = isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))
        if in_memory or "RESOURCE_EXHAUSTED" in str(error):
            raise ResourcesError(
                f"out of memory with batch_size {batch_size}; a smaller --batch_size needs less, and so does "
                "--mixed_precision"
            ) from error
        raise


class Finite(keras.callbacks.Callback):
    """Stops training when the loss or a weight is not finite. (A non-finite gradient makes its weight so.)

    The loss is checked after every execution, all weights every second and at the end of an epoch:
    TensorFlow's CPU kernels can turn NaN into 0 on the way to the loss.

    Args:
        check: returns the path of a weight that is not finite, or "".
        seconds: time between two checks of the weights; 0 checks after every execution.

    Attributes:
        check: as given.
        broken: whether training was stopped.
        step: the batch of the epoch after which it was stopped, from 0.
    """

    def __init__(self, check: Callable[[], str], seconds: float = CHECKED_EVERY):
        super().__init__()
        self.check = check
        self._seconds, self._checked_at = seconds, time.monotonic()
        self.broken, self.step = False, 0

    def on_train_batch_end(self, batch, logs=None):
        self.step = batch
        self._check(logs, self._seconds)

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, 0)

    def _check(self, logs: Mapping, seconds: float) -> None:
        due = time.monotonic() - self._checked_at >= seconds
        if not np.isfinite(float(logs["loss"])) or (due and self.check()):
            self.broken = self.model.stop_training = True
        if due:
            self._checked_at = time.monotonic()


class Learning(keras.callbacks.Callback):
    """Stops a training that does not learn.

    After some epochs, the loss was never below that of the best constant answer, it falls no further, and the
    training accuracy is no better than that answer's. A loss alone says too little: with a batch norm on the
    logits it begins far above and may stay there, while the answers become right.

    Args:
        constant: the loss of the best constant answer.
        within: epochs until the first check; 0 never stops.
        rows: returns the history so far, a row for each epoch with `loss` and, for classes, `accuracy`. The
            current penalty of a backbone's own regularizers is subtracted from the losses.
        first: the first of the epochs that count, after those of a frozen stage.
        majority: share of the most frequent class, the accuracy of the best constant answer; None for
            numbers.

    Attributes:
        failed: whether training was stopped.
    """

    def __init__(
        self,
        constant: float,
        within: int,
        rows: Callable[[], Sequence[Mapping[str, float]]],
        first: int = 0,
        majority: float | None = None,
    ):
        super().__init__()
        self._constant, self._within, self._rows = constant, within, rows
        self._first, self._majority = first, majority
        self.failed = False

    def on_epoch_end(self, epoch, logs=None):
        rows = self._rows()[self._first :]
        if not self._within or len(rows) < self._within:
            return
        losses = [row["loss"] for row in rows]
        if min(losses) - penalty(self.model) <= self._constant * (1 - MARGIN):
            return
        is_falling = losses[-1] < (1 - MARGIN) * min(losses[:-1], default=0.0)
        is_right = self._majority is not None and rows[-1].get("accuracy", 0.0) > self._majority + MARGIN
        if not is_falling and not is_right:
            self.failed = self.model.stop_training = True


def penalty(model: keras.Model) -> float:
    """The sum that the regularizers of a model's weights add to its loss."""
    weights = [weight for weight in model.trainable_weights if weight.regularizer is not None]
    return float(sum(ops.convert_to_numpy(weight.regularizer(weight)) for weight in weights))


def constant_loss(
    task: str, dataset: DataSet, mixup: float = 0.0, weights: np.ndarray | float = 1.0
) -> float:
    """The training loss of the best answer that ignores the image.

    For classes this is their entropy; for a sigmoid per class, the mean of the entropies; for numbers in
    units of their deviation, 1. Mixup does not change the entropies, since a mixture's loss is the mixture of
    the losses; it reduces the variance of numbers to 1 - 2 E[share (1 - share)] with a share from
    Beta(mixup, mixup). Weights of the classes change their shares; an adjustment of the logits changes
    nothing, since a constant answer can make up for it.

    Args:
        task: name of the task.
        dataset: its training split counts.
        mixup: alpha of mixup.
        weights: `(classes,)`, weights of the classes with a mean of 1 over the training examples.
    """
    if task == "regression":
        return (mixup + 1) / (2 * mixup + 1)
    share = weights * np.asarray(dataset.class_counts(), float) / dataset.train.size
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.nan_to_num(-share * np.log(share))
        negative = np.nan_to_num(-(1 - share) * np.log(1 - share))
    return float((positive + negative).mean() if task == "multilabel" else positive.sum())


class _StopAtBreak(keras.callbacks.Callback):
    """Keeps the state before each execution. Stops after the first one that breaks the loss or a weight."""

    def __init__(self, check: WeightCheck):
        super().__init__()
        self._check, self.state_before, self.step, self.broken = check, {}, 0, False

    def on_train_batch_begin(self, batch, logs=None):
        self.state_before = captured(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(float(logs["loss"])) or self._check():
            self.broken = self.model.stop_training = True


def locate(model: keras.Model, arrays: Mapping[str, np.ndarray], feed: Feed, step: int) -> dict:
    """Trains again from a sound state, step by step, up to the first step that breaks it.

    Args:
        model: the model; it is left in the state before that step.
        arrays: the sound state.
        feed: the run's batches.
        step: steps done in the sound state.

    Returns:
        `step`, from 1, of the whole training; `epoch`, from 1; `where`: "input", "activation", "loss" or
        "gradient", the first of them that is not finite in that step; `layer`: of an activation the first
        layer in the model's order, of a gradient the layer nearest to the output whose weights it spoiled.
        Only step and epoch with several replicas, where the training step makes its own batch (attacks, a
        target domain), and if nothing breaks again, which does not happen on a CPU.
    """
    replay = _StopAtBreak(WeightCheck(model))
    restore(model, arrays)
    model.steps_per_execution, model.train_function = 1, None  # a compiled loop of steps would hide the step
    fit(model, feed, [replay], step)
    broken = step + replay.step
    failure = {"step": broken, "epoch": (broken - 1) // feed.steps + 1}
    makes_its_batch = "train_step" in vars(model)
    if not replay.broken or makes_its_batch or feed.replicas.number > 1:
        restore(model, replay.state_before if replay.broken else arrays)
        return failure
    spoiled = [variable.path for variable in model.trainable_variables if not all_finite(variable)]
    restore(model, replay.state_before)
    inputs, targets = next(iter(feed.train(*divmod(broken - 1, feed.steps))))[:2]
    cause = _locate_in_forward_pass(model, inputs, targets) or {
        "where": "gradient",
        "layer": spoiled[-1].rpartition("/")[0] if spoiled else "",
    }
    restore(model, replay.state_before)  # the forward pass has changed moving averages and random states
    return {**failure, **cause}


def _locate_in_forward_pass(model: keras.Model, inputs, targets) -> dict | None:
    """The first value on the way from the inputs to the loss that is not finite; None if all are."""
    if not all(all_finite(x) for x in keras.tree.flatten(inputs)):
        return {"where": "input", "layer": ""}
    with keras.StatelessScope(), taps.opened(model) as opened:
        outputs = model(inputs, training=True)
        loss = model.compute_loss(inputs, targets, outputs)
    calls = opened.passes[0]
    for tap in sorted([*calls.activations, *calls.outputs], key=lambda tap: tap.order):
        # a rectifier may turn NaN into 0, so its input is checked too
        if not all(all_finite(value) for value in (tap.pre_activation, tap.output) if value is not None):
            return {"where": "activation", "layer": tap.path or tap.name}
    return None if np.isfinite(float(loss)) else {"where": "loss", "layer": ""}
