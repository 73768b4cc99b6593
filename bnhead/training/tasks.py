"""The tasks: classification, multilabel classification, regression; the loss, metrics and targets of each.

The head is the same for all. Its outputs are logits for the first two, and for regression numbers in units of
the training targets' standard deviation, which a last layer converts to the targets' units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bnhead.data import DataSet
from bnhead.data.split import without_autograph

TargetMoments = tuple[np.ndarray, np.ndarray]  # mean and standard deviation of each target


class ScaledError(keras.losses.MeanSquaredError):
    """Mean squared error, each target in units of its standard deviation.

    Args:
        deviation: `(targets,)`.
    """

    def __init__(self, deviation: np.ndarray):
        super().__init__()
        self._deviation = deviation.astype("float32")

    def call(self, y_true, y_pred):
        return super().call(y_true / self._deviation, y_pred / self._deviation)


class ScaledR2(keras.metrics.R2Score):
    """R^2 of standardised targets: the mean over the targets.

    Standardising does not change the score. It keeps Keras' float32 sums of squares precise when a mean is
    large compared with its deviation.

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
        loss: makes the loss, from the moments of the targets for regression, else from None.
        metrics: makes the metrics, likewise.
        targets: `(labels, number of outputs) -> targets` of a batch.
    """

    primary: str
    loss: Callable[[TargetMoments | None], keras.losses.Loss]
    metrics: Callable[[TargetMoments | None], list[keras.metrics.Metric]]
    targets: Callable[[tf.Tensor, int], tf.Tensor] = lambda labels, outputs: labels


def _class_shares(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    """Shares of the classes: one-hot, unless mixup has already mixed them."""
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
        _class_shares,
    ),
    "regression": Task(
        "r2",
        lambda moments: ScaledError(moments[1]),
        lambda moments: [ScaledR2(*moments), keras.metrics.MeanAbsoluteError(name="mae")],
    ),
}
SOFT_CLASSIFICATION = Task(  # the same loss and metric for targets that are shares of the classes
    "accuracy",
    lambda _: keras.losses.CategoricalCrossentropy(from_logits=True),
    lambda _: [keras.metrics.CategoricalAccuracy(name="accuracy")],
    _class_shares,
)


def find_task(name: str, *, soft: bool = False) -> Task:
    """A task of `TASKS`; with `soft` classification has shares of the classes as targets, as with mixup."""
    return SOFT_CLASSIFICATION if soft and name == "classification" else TASKS[name]


def compile_for_task(
    model: keras.Model,
    task: str,
    dataset: DataSet,
    optimizer: keras.optimizers.Optimizer,
    *,
    soft: bool = False,
    **options: Any,
) -> keras.Model:
    """Compiles a model for a task. For regression it gets a last layer `to_units`.

    The mean squared error is taken in units of the training targets' variances, so that its size, and with it
    the learning rate, does not depend on the targets' units.

    Args:
        model: the net; it may be replaced by a new one.
        task: a name of `TASKS`.
        dataset: its training targets give the units.
        optimizer: for the model's variables.
        soft: whether targets are shares of the classes.
        **options: of `model.compile`.
    """
    moments = None
    if task == "regression":
        moments = mean, deviation = dataset.target_moments()
        scale = keras.layers.Rescaling(deviation.tolist(), mean.tolist(), dtype="float32", name="to_units")
        model = keras.Model(model.input, scale(model.output), name=model.name)
    spec = find_task(task, soft=soft)
    # weighted, since padding of an evaluation batch (`devices.replicas.padded`) has weight 0
    model.compile(optimizer, spec.loss(moments), weighted_metrics=spec.metrics(moments), **options)
    return model


def task_batches(
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
    targets = find_task(task, soft=soft).targets
    return model_inputs(data, lambda labels: targets(labels, outputs), with_labels=with_labels)


def labels_for_softmax(data: Any, task: str) -> Any:
    """The data with labels for figures of classes, which are those of a softmax: none for other tasks.

    Args:
        data: batches of `(x, y)`, or one tuple of arrays.
        task: a name of `TASKS`.
    """
    if task == "classification":
        return data
    return data[:1] if isinstance(data, tuple) else data.map(lambda x, y: (x,))


@without_autograph
def model_inputs(
    data: tf.data.Dataset,
    targets: Callable[[tf.Tensor], tf.Tensor] = lambda labels: labels,
    *,
    with_labels: bool,
) -> tf.data.Dataset:
    """Batches of `(inputs, targets)` from batches of `(images, labels)`.

    Args:
        data: the batches.
        targets: labels -> targets.
        with_labels: whether the model reads the labels too, as its second input.
    """

    def prepare(images, labels):
        inputs = (images, tf.cast(labels, tf.int32)) if with_labels else images
        return inputs, targets(labels)

    return data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(1)
