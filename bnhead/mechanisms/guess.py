"""The initial guess of a net: how it spreads its answers over the classes before it has learned anything."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import feed, totals
from bnhead.errors import UsageError
from bnhead.graph import trace
from bnhead.graph.calls import producer
from bnhead.graph.inputs import batches, check_data, class_numbers
from bnhead.mechanisms.split import cross_entropy, require_one_output, yields_logits


@dataclass(frozen=True)
class Guess:
    """How a net's answers are spread.

    Attributes:
        modal_share: share of the inputs that get the most frequent answer: 1 / C for C balanced classes.
        entropy: entropy of the answers / ln C: 1 if all answers are equally frequent, 0 for a single one.
        classes: number of different answers.
        loss: mean cross-entropy / ln C: 1 for a net that knows nothing; NaN without labels.
        prior: share of the most frequent label; NaN without labels.
    """

    modal_share: float
    entropy: float
    classes: int
    loss: float
    prior: float

    @property
    def is_prejudiced(self) -> bool:
        """Whether the most frequent answer has twice the share of the most frequent label, or more."""
        return self.modal_share >= 2 * self.prior


class GuessSums:
    """Counts of answers and labels over batches, from which `Guess` is computed."""

    def __init__(self, classes: int):
        self._answers, self._labels, self._loss = np.zeros(classes), np.zeros(classes), 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray | None) -> None:
        """Adds a batch: logits `(examples, classes)` and class numbers `(examples,)` or None."""
        classes = len(self._answers)
        self._answers += np.bincount(logits.argmax(-1), minlength=classes)
        if labels is not None:
            self._labels += np.bincount(labels, minlength=classes)
            self._loss += cross_entropy(logits, labels).sum()

    def result(self) -> Guess:
        """The figures of all batches added."""
        answers, labels = self._answers, self._labels
        shares, scale = answers / answers.sum(), np.log(len(answers))
        entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum() / scale
        known = labels.sum() == answers.sum()
        loss, prior = (
            (self._loss / labels.sum() / scale, labels.max() / labels.sum()) if known else (np.nan,) * 2
        )
        return Guess(float(shares.max()), float(entropy), int((answers > 0).sum()), float(loss), float(prior))


def training_logits(model: keras.Model, data: Any, batch_size: int = 256):
    """Logits and labels of each batch with the statistics of the batch in every norm, as in a training step.

    Dropout drops, as in the first step. The model is not changed.

    Args:
        model: a built Keras model of one output `(batch, classes)`.
        data: `(x, y)` or x, as for `census.count`.
        batch_size: inputs per batch if `data` is arrays; the statistics depend on it.

    Yields:
        Float32 `(examples, classes)`, and `(examples,)` class numbers or None.
    """
    trace.require_built(model)
    check_data(data, batch_size)
    run = trace.compiled(lambda x: model(x, training=True), model)
    for x, y in batches(data, feed.batch_size_of(model, batch_size)):
        x = feed.arranged(model, x)
        with feed.fitting(x):
            outputs = totals.to_host({"outputs": ops.cast(run(x), "float32")})["outputs"]
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise UsageError(f"model {model.name!r} must have outputs (batch, classes), got {outputs.shape}")
        yield (
            outputs if yields_logits(model) else np.log(np.maximum(outputs, 1e-30)),
            class_numbers(y, outputs.shape[1]),
        )


def initial_guess(model: keras.Model, data: Any, *, batch_size: int = 256) -> Guess:
    """How an untrained net spreads its answers, with the statistics of each batch in every norm.

    In evaluation mode the moving averages of an untrained net are their initial values, which mean nothing.

    Args:
        model, data, batch_size: as for `training_logits`; a few hundred inputs are enough.

    Reference: Francazi, Lucchi & Baity-Jesi 2024, arXiv 2306.00809.
    """
    sums = None
    for logits, labels in training_logits(model, data, batch_size):
        sums = sums or GuessSums(logits.shape[1])
        sums.add(logits, labels)
    if sums is None:
        raise UsageError("data must have at least one batch of inputs")
    return sums.result()


def offset_of_logits(model: keras.Model) -> keras.Variable | None:
    """The variable that is added to the logits: the output layer's bias, or beta of a norm; None without one.

    A softmax after the logits is passed over.

    Args:
        model: a functional or Sequential model of one output.
    """
    tensor = require_one_output(model)
    last = producer(tensor)
    while isinstance(last.operation, keras.layers.Softmax | keras.layers.Activation):
        last = producer(last.inputs[0])
    bias = getattr(last.operation, "bias", None)
    return getattr(last.operation, "beta", None) if bias is None else bias


def neutralise(
    model: keras.Model, data: Any, prior: Any = None, *, batch_size: int = 256, independent: bool = False
) -> np.ndarray:
    """Sets the output bias so that the mean logits are the log prior: a neutral initial guess.

    The bias becomes bias - mean logit + log prior, with the logits of a training step (`training_logits`).
    All other weights stay, so that what remains of a difference between two heads is not their initial guess.

    Args:
        model: a classifier whose last layer has a bias, or is a norm with beta; this variable is changed.
        data: training data, `(x, y)`, or x if `prior` is not None.
        prior: `(classes,)` shares or counts of the classes; None for those of the labels in `data`.
        batch_size: inputs per batch if `data` is arrays.
        independent: whether the classes are independent, each with a sigmoid: then log(p / (1 - p)) takes
            the place of log p, and `prior` has shares.

    Returns:
        `(classes,)` float64, what was added to the bias.

    Raises:
        UsageError: no bias, no labels and no prior, or a prior of another number of classes.
    """
    bias = offset_of_logits(model)
    if bias is None:
        raise UsageError(
            f"model {model.name!r} has no bias on its logits to make its initial guess neutral with"
        )
    total, examples, counts = 0.0, 0, 0.0
    for logits, labels in training_logits(model, data, batch_size):
        total, examples = total + logits.sum(0, dtype="float64"), examples + len(logits)
        if labels is not None:
            counts = counts + np.bincount(labels, minlength=logits.shape[1])
    if not examples:
        raise UsageError("data must have at least one batch of inputs")
    shares = np.asarray(counts if prior is None else prior, "float64")
    if shares.shape != total.shape or not (shares >= 0).all() or not shares.sum() > 0:
        raise UsageError(f"prior must have a share of each of the {len(total)} classes, got {prior!r}")
    if independent:
        shares = np.clip(shares, 1e-6, 1 - 1e-6)
        target = np.log(shares / (1 - shares))
    else:  # a class without examples gets the prior of half an example
        target = np.log(np.maximum(shares / shares.sum(), 0.5 / max(examples, 1)))
    change = target - total / examples
    bias.assign(np.asarray(ops.convert_to_numpy(bias), "float64") + change)
    return change
