"""The initial guess of a net: how it spreads its answers over the classes before it has learned anything."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import feed, totals
from bnhead.errors import UsageError
from bnhead.graph import trace
from bnhead.graph.inputs import batches, check_data, class_numbers
from bnhead.heads.surgery import inference
from bnhead.layers import neutral
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
        labelled = labels.sum() == answers.sum()
        loss, prior = (
            (self._loss / labels.sum() / scale, labels.max() / labels.sum()) if labelled else (np.nan,) * 2
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


def neutralise(
    model: keras.Model, data: Any, prior: Any = None, *, batch_size: int = 256, independent: bool = False
) -> np.ndarray:
    """Sets the output bias so that the mean logits are the log prior: a neutral initial guess.

    The bias becomes bias - mean logit + log prior (`bnhead.layers.neutral`), with batch norms on the
    statistics of `data`. All other weights stay, so what remains of a difference of two heads is not their
    initial guess.

    Args:
        model: a classifier whose last layer has a bias, or is a norm with beta; this variable is changed.
        data: training data, `(x, y)`, or x if `prior` is not None.
        prior: `(classes,)` shares or counts of the classes; None for those of the labels in `data`.
        batch_size: inputs per batch if `data` is arrays.
        independent: whether the classes are independent, each with a sigmoid: then log(p / (1 - p)) takes
            the place of log p, and `prior` has shares.

    Returns:
        `(classes,)` float64, the amount added to the bias.

    Raises:
        UsageError: no bias, no labels and no prior, or a prior of another number of classes.
    """
    classes = require_one_output(model).shape[-1]
    shares = np.zeros(classes) if prior is None else np.asarray(prior, "float64")
    check_data(data, batch_size, again=True)
    if prior is None:
        for _, y in batches(data, batch_size):
            labels = class_numbers(y, classes)
            shares += 0 if labels is None else np.bincount(labels, minlength=classes)
    if shares.shape != (classes,) or not (shares >= 0).all() or not shares.sum() > 0:
        raise UsageError(f"prior must have a share of each of the {classes} classes, got {prior!r}")
    if independent:
        shares = np.clip(shares, 1e-6, 1 - 1e-6)
        target = np.log(shares / (1 - shares))
    else:
        target = np.log(np.maximum(shares / shares.sum(), 1e-6))  # finite for a class without examples
    return neutral.neutralise(inference(model), data, target, batch_size=batch_size)
