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
        tf.one_hot,
    ),
    "regression": Task(
        "r2",
        keras.losses.MeanSquaredError,
        lambda: [keras.metrics.R2Score(name="r2"), keras.metrics.MeanAbsoluteError(name="mae")],
    ),
}


def compiled(
    model: keras.Model, task: str, dataset: DataSet, optimizer: keras.optimizers.Optimizer
) -> keras.Model:
    """The compiled model of a task; for numbers with a last layer `to_units`.

    The mean squared error is taken in units of the training targets' variance, so that its size, and with it
    the learning rate, does not depend on the targets' units.
    """
    weight = None
    if task == "regression":
        mean, deviation = dataset.target_moments()
        scale = keras.layers.Rescaling(deviation, offset=mean, dtype="float32", name="to_units")
        model = keras.Model(model.input, scale(model.output), name=model.name)
        weight = 1 / deviation**2
    kind = TASKS[task]
    model.compile(optimizer, kind.loss(), metrics=kind.metrics(), loss_weights=weight)
    return model


def batches(data: tf.data.Dataset, task: str, outputs: int, *, with_labels: bool) -> tf.data.Dataset:
    """Batches of `(inputs, targets)` from batches of `(images, labels)`.

    Args:
        data: batches of images and labels.
        task: a name of `TASKS`.
        outputs: number of outputs.
        with_labels: whether the model reads the labels too, as its second input.
    """

    def prepare(images, labels):
        inputs = (images, tf.cast(labels, tf.int32)) if with_labels else images
        return inputs, TASKS[task].targets(labels, outputs)

    return data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(1)
