"""What is learned: classes, labels that exclude nothing, or numbers. Loss, metrics, targets of each.

The head is the same for all: its outputs are logits for the first two, and numbers in units of the training
targets' standard deviation for the third, which a last layer turns into the targets' own units.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from bnhead.data import DataSet


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        loss: its loss on logits or numbers.
        primary: name of the metric that is reported first; the higher the better.
        metrics: makes its metrics.
        targets: `(labels, number of outputs) -> targets` of a batch.
    """

    primary: str
    loss: Callable[[], keras.losses.Loss]
    metrics: Callable[[], list[keras.metrics.Metric]]
    targets: Callable[[tf.Tensor, int], tf.Tensor] = lambda labels, outputs: labels


def _hot(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    """Shares of the classes: one-hot, unless mixup has made shares of them already."""
    return labels if labels.dtype.is_floating else tf.one_hot(labels, outputs)


TASKS = {
    "classification": Task(
        "accuracy",
        lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    ),
    "multilabel": Task(
        "accuracy",
        lambda: keras.losses.BinaryCrossentropy(from_logits=True),
        lambda: [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.BinaryAccuracy(name="binary_accuracy", threshold=0.0),
        ],
        _hot,
    ),
    "regression": Task(
        "r2",
        keras.losses.MeanSquaredError,
        lambda: [keras.metrics.R2Score(name="r2"), keras.metrics.MeanAbsoluteError(name="mae")],
    ),
}
SOFT_CLASSIFICATION = Task(  # the same loss and metric, of targets that are shares of the classes
    "accuracy",
    lambda: keras.losses.CategoricalCrossentropy(from_logits=True),
    lambda: [keras.metrics.CategoricalAccuracy(name="accuracy")],
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
) -> keras.Model:
    """The compiled model of a task, of soft targets or others; for numbers with a last layer `to_units`.

    The mean squared error is taken in units of the training targets' variance, so that its size, and with it
    the learning rate, does not depend on the targets' units.
    """
    weight = None
    if task == "regression":
        mean, deviation = dataset.target_moments()
        scale = keras.layers.Rescaling(deviation, offset=mean, dtype="float32", name="to_units")
        model = keras.Model(model.input, scale(model.output), name=model.name)
        weight = 1 / deviation**2
    kind = task_named(task, soft=soft)
    model.compile(optimizer, kind.loss(), metrics=kind.metrics(), loss_weights=weight)
    return model


def example_maker(
    task: str, outputs: int, *, with_labels: bool, soft: bool = False
) -> Callable[[tf.Tensor, tf.Tensor], tuple]:
    """A function from a batch's `(images, labels)` to its `(inputs, targets)`.

    Args:
        task: a name of `TASKS`.
        outputs: number of outputs.
        with_labels: whether the model reads the labels too, as its second input.
        soft: whether targets are shares of the classes.
    """
    targets = task_named(task, soft=soft).targets

    def prepare(images, labels):
        inputs = (images, tf.cast(labels, tf.int32)) if with_labels else images
        return inputs, targets(labels, outputs)

    return prepare


def batches(
    data: tf.data.Dataset, task: str, outputs: int, *, with_labels: bool, soft: bool = False
) -> tf.data.Dataset:
    """Batches of `(inputs, targets)` from batches of `(images, labels)`; arguments as of `example_maker`."""
    prepare = example_maker(task, outputs, with_labels=with_labels, soft=soft)
    return data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(1)
