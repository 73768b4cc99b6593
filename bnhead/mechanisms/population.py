"""One pass over training data: population statistics of a norm's input, and mates for its batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bnhead.census import feed
from bnhead.errors import UsageError
from bnhead.graph import trace
from bnhead.graph.inputs import batches, check_data, class_numbers
from bnhead.graph.weights import all_finite
from bnhead.layers import FrozenBatchNormalization
from bnhead.mechanisms.collapse import ClassMoments
from bnhead.mechanisms.moments import FeatureMoments
from bnhead.mechanisms.split import Affine, Split

POOL = 4096  # examples whose sums are kept as mates


@dataclass(eq=False)
class Batch:
    """A batch in the parts of a model that is cut at its norm.

    Attributes:
        features: as `Split.features` returns them.
        labels: `(examples,)` int32 class numbers; None for other labels and without labels.
        evaluation: `Split.outputs` in evaluation mode, by the norm's moving averages.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray | None
    evaluation: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.features["features"])


def batches_of(split: Split, data: Any, batch_size: int) -> Iterator[Batch]:
    """The batches of data, passed through the model in evaluation mode.

    Args:
        split: the model.
        data: inputs, or inputs and labels, as for `census.count`.
        batch_size: inputs per batch if `data` is arrays.

    Raises:
        UsageError: data that cannot be read, are empty or do not fit the model, or values of the features
            that are not finite.
    """
    check_data(data, batch_size)
    classes, evaluation, empty = split.net.outputs[0].shape[-1], split.evaluation(), True
    for x, y in batches(data, feed.batch_size_of(split.net, batch_size)):
        features = split.features(x)
        # the inputs are checked too, since TensorFlow's fused kernels can turn NaN into 0
        if not all(
            all_finite(a)
            for a in (*(a for a in keras.tree.flatten(x) if a is not None), features["features"])
        ):
            raise UsageError(
                f"data: the inputs, or the values that reach layer {split.name!r}, are not finite"
            )
        if not len(features["features"]):
            continue
        empty = False
        labels = class_numbers(y, classes) if len(split.net.outputs[0].shape) == 2 else None
        yield Batch(features, labels, split.outputs(features, evaluation))
    if empty:
        raise UsageError("data must have at least one batch of inputs")


class Mates:
    """A random sample of examples, of which only the sums that enter a batch's statistics are kept.

    A reservoir (Vitter 1985, algorithm R): every example of the data has the same chance to be in it.

    Args:
        seed: of the sample.
        size: examples to keep at most.

    Attributes:
        seen: number of examples added so far.
    """

    def __init__(self, seed: int = 0, size: int = POOL):
        self._rng, self._size, self.seen = np.random.default_rng(seed), size, 0
        self._centre: np.ndarray | None = None  # near the mean, so that squares do not cancel
        self._sums = np.zeros((0, 2, 1))

    def add(self, x: np.ndarray) -> None:
        """Adds a batch of features `(examples, ..., channels)`."""
        if self._centre is None:
            self._centre = x.reshape(-1, x.shape[-1]).mean(0, dtype="float64")
            self._sums = np.zeros((0, 2, x.shape[-1]))
        sums = self.sums(x)
        room = max(0, min(self._size - len(self._sums), len(sums)))
        self._sums = np.concatenate([self._sums, sums[:room]])
        for number, row in enumerate(sums[room:], start=self.seen + room):
            position = self._rng.integers(number + 1)
            if position < self._size:
                self._sums[position] = row
        self.seen += len(sums)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """`(examples, 2, channels)`: means over positions of the distance from the centre and its square."""
        centred = x.reshape(len(x), -1, x.shape[-1]).astype("float64") - self._centre
        return np.stack([centred.mean(1), (centred**2).mean(1)], axis=1)

    def draw(self, rng: np.random.Generator, draws: int, number: int) -> np.ndarray:
        """`(draws, 2, channels)`, the summed `sums` of random sets of mates.

        Drawn without replacement if the sample is all of the data, as a shuffled epoch does, and with
        replacement otherwise: then two mates are rarely the same example.

        Raises:
            UsageError: a batch needs more mates than the data have.
        """
        complete = self.seen == len(self._sums)
        if complete and number > self.seen:
            raise UsageError(f"batch_size must be at most the {self.seen + 1} examples, got {number + 1}")
        counts = np.zeros((draws, len(self._sums)))
        for row in counts:
            rows = rng.choice(len(self._sums), number, replace=not complete)
            np.add.at(row, rows, 1.0)
        return np.tensordot(counts, self._sums, axes=1)

    def statistics(self, x: np.ndarray, mates: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and biased variance of the batch that each example forms with a set of mates.

        Args:
            x: `(examples, ..., channels)`.
            mates: `(2, channels)`, one row of `draw`.
            number: of mates.

        Returns:
            Two `(examples, channels)` float64.
        """
        sums = (self.sums(x) + mates) / (number + 1)
        return self._centre + sums[:, 0], np.maximum(sums[:, 1] - sums[:, 0] ** 2, 0.0)


@dataclass(eq=False)
class Reference:
    """What one pass over the training data gives.

    Attributes:
        split: the model.
        features: moments of the norm's input: its `mean` and `variance` are the population statistics.
        fc: moments of the input of the first Dense after the norm, in evaluation mode; None without one.
        output: moments by class of the input of the output layer, in evaluation mode; None if it is no
            vector, without labels and without a Dense.
        mates: the sample of examples that form batches.
        logits: `(outputs,)` float64, mean logits in evaluation mode.
        labels: `(outputs,)` float64, number of examples of each class; zeros without labels.
    """

    split: Split
    features: FeatureMoments
    fc: FeatureMoments | None
    output: ClassMoments | None
    mates: Mates
    logits: np.ndarray
    labels: np.ndarray

    @property
    def population(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and biased variance of the norm's input over all examples, two `(channels,)` float64."""
        return self.features.mean, self.features.variance

    def affine(self, mean: np.ndarray, variance: np.ndarray) -> Affine:
        """The norm's map with given statistics (`Split.affine`); without a norm, one that would be
        the identity in evaluation mode."""
        return self.split.affine(mean, variance, self.population)

    @property
    def noiseless(self) -> Affine:
        """The norm's map with population statistics; a frozen norm keeps its own."""
        if isinstance(self.split.norm, FrozenBatchNormalization):
            return self.split.evaluation()
        return self.affine(*self.population)


def reference(
    model: keras.Model | Split, data: Any, *, norm: str | None = None, batch_size: int = 256, seed: int = 0
) -> Reference:
    """The moments of the features on training data, in evaluation mode, in one pass.

    Args:
        model: a functional model, or one that is split already.
        data: training data, `(x, y)` or x, as for `census.count`.
        norm: name of the norm, as for `Split`.
        batch_size: inputs per batch if `data` is arrays; no moment depends on it.
        seed: of the sample of mates.

    Raises:
        UsageError: as for `Split` and `batches_of`.
    """
    split = model if isinstance(model, Split) else Split(model, norm)
    trace.synchronize_variables(split.model)
    features, fc, mates = FeatureMoments(), None, Mates(seed)
    output: ClassMoments | None = None
    classes = split.net.outputs[0].shape[-1]
    logits, labels = np.zeros(classes), np.zeros(classes)
    for batch in batches_of(split, data, batch_size):
        x = batch.features["features"]
        features = features.merge(FeatureMoments.of(x))
        mates.add(x)
        logits += batch.evaluation["logits"].reshape(-1, classes).sum(0, dtype="float64")
        if batch.labels is not None:
            labels += np.bincount(batch.labels, minlength=classes)
        if "fc" in batch.evaluation:
            fc = (fc or FeatureMoments()).merge(FeatureMoments.of(batch.evaluation["fc"]))
        read = batch.evaluation.get("output")
        if read is not None and read.ndim == 2 and batch.labels is not None:
            of_batch = ClassMoments.of(read, batch.labels, classes)
            output = of_batch if output is None else output.merge(of_batch)
    return Reference(split, features, fc, output, mates, logits / features.examples, labels)
