"""What is learned: classes, labels that exclude nothing, or numbers. Loss, metrics, targets of each.

The head is the same for all: its outputs are logits for the first two, and numbers in units of the training
targets' standard deviation for the third, which a last layer turns into the targets' own units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bnhead.data import DataSet

Moments = tuple[np.ndarray, np.ndarray]  # mean and deviation of each target


class ScaledError(keras.losses.MeanSquaredError):
    """Mean squared error, each target in units of its deviation.

    Args:
        deviation: `(targets,)`.
    """

    def __init__(self, deviation: np.ndarray):
        super().__init__()
        self._deviation = deviation.astype("float32")

    def call(self, y_true, y_pred):
        return super().call(y_true / self._deviation, y_pred / self._deviation)


class ScaledR2(keras.metrics.R2Score):
    """R^2 of targets less their mean, in units of their deviation: the mean over the targets.

    The score does not depend on that; Keras' float32 sums of squares do, where a mean is large against its
    deviation.

    Args:
        mean: `(targets,)`.
        deviation: `(targets,)`.
    """

    def __init__(self, mean: np.ndarray, deviation: np.ndarray):
        super().__init__(name="r2")
        self._mean, self._deviation = mean.astype("float32"), deviation.astype("float32")

    def update_state(self, y_true, y_pred, sample_weight=None):
        scaled = [(keras.ops.cast(y, "float32") - self._mean) / self._deviation for y in (y_true, y_pred)]
        return super().update_state(*scaled, sample_weight)


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        primary: name of the metric that is reported first; the higher the better.
        loss: makes its loss on logits, or on numbers whose moments it is given.
        metrics: makes its metrics.
        targets: `(labels, number of outputs) -> targets` of a batch.
    """

    primary: str
    loss: Callable[[Moments | None], keras.losses.Loss]
    metrics: Callable[[Moments | None], list[keras.metrics.Metric]]
    targets: Callable[[tf.Tensor, int], tf.Tensor] = lambda labels, outputs: labels


def _hot(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    """Shares of the classes: one-hot, unless mixup has made shares of them already."""
    return labels if labels.dtype.is_floating else tf.one_hot(labels, outputs)


TASKS = {
    "classification": Task(
        "accuracy",
        lambda _: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda _: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    ),
    "multilabel": Task(
        "accuracy",
        lambda _: keras.losses.BinaryCrossentropy(from_logits=True),
        lambda _: [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.BinaryAccuracy(name="binary_accuracy", threshold=0.0),
        ],
        _hot,
    ),
    "regression": Task(
        "r2",
        lambda moments: ScaledError(moments[1]),
        lambda moments: [ScaledR2(*moments), keras.metrics.MeanAbsoluteError(name="mae")],
    ),
}
SOFT_CLASSIFICATION = Task(  # the same loss and metric, of targets that are shares of the classes
    "accuracy",
    lambda _: keras.losses.CategoricalCrossentropy(from_logits=True),
    lambda _: [keras.metrics.CategoricalAccuracy(name="accuracy")],
    _hot,
)


def task_named(name: str, *, soft: bool = False) -> Task:
    """A task of `TASKS`; of classification the one whose targets are `soft`, as mixup makes them."""
    return SOFT_CLASSIFICATION if soft and name == "classification" else TASKS[name]


def compiled(
    model: keras.Model,
    task: str,
    dataset: DataSet,
    optimizer: keras.optimizers.Optimizer,
    *,
    soft: bool = False,
    **how: Any,
) -> keras.Model:
    """The compiled model of a task, of soft targets or others; for numbers with a last layer `to_units`.

    The mean squared error is taken in units of the training targets' variances, so that its size, and with it
    the learning rate, does not depend on the targets' units. `how` goes to `model.compile`.
    """
    moments = None
    if task == "regression":
        moments = mean, deviation = dataset.target_moments()
        scale = keras.layers.Rescaling(deviation.tolist(), mean.tolist(), dtype="float32", name="to_units")
        model = keras.Model(model.input, scale(model.output), name=model.name)
    kind = task_named(task, soft=soft)
    # weighted: an evaluation batch that was filled up (`distribution`) says so by weights of 0
    model.compile(optimizer, kind.loss(moments), weighted_metrics=kind.metrics(moments), **how)
    return model


def batches(
    data: tf.data.Dataset, task: str, outputs: int, *, with_labels: bool, soft: bool = False
) -> tf.data.Dataset:
    """Batches of `(inputs, targets)` from batches of `(images, labels)`.

    Args:
        data: the batches.
        task: a name of `TASKS`.
        outputs: number of outputs.
        with_labels: whether the model reads the labels too, as its second input.
        soft: whether targets are shares of the classes.
    """
    targets = task_named(task, soft=soft).targets

    def prepare(images, labels):
        inputs = (images, tf.cast(labels, tf.int32)) if with_labels else images
        return inputs, targets(labels, outputs)

    return data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(1)
