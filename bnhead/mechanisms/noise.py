"""The noise of a batch norm: the same example with other batch-mates."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.layers import (
    BatchCentering,
    BatchRenormalization,
    BatchScaling,
    FrozenBatchNormalization,
    GhostBatchNormalization,
)
from bnhead.mechanisms.moments import FeatureMoments
from bnhead.mechanisms.population import Batch, Reference, batches_of, reference
from bnhead.mechanisms.split import Affine, Split, cross_entropy

RARE = 3.0  # batch size x share of active examples below which a unit is rarely active under a batch norm
DRAWS = 16


def predicted_variance(z: Any, skewness: Any, kurtosis: Any, batch_size: float) -> Any:
    """The variance of a normalised value over random batch-mates: (1 + z k3 + z^2 (k4 - 1) / 4) / B.

    To first order in 1 / B: the batch's mean has variance 1 / B, its deviation (k4 - 1) / (4 B), and the two
    covary by k3 / (2 B). It is far too small for units that are active less than once per batch.

    Args:
        z: value of the unit in standard deviations from the mean.
        skewness, kurtosis: of the unit; 0 and 3 for a normal.
        batch_size: B.
    """
    return (1 + z * skewness + z**2 * (kurtosis - 1) / 4) / batch_size


def examples_per_norm(split: Split, batch_size: int) -> float:
    """Number of examples whose statistics the norm takes in training: a ghost batch norm takes a part."""
    if isinstance(split.norm, GhostBatchNormalization):
        return batch_size / max(1, batch_size // split.norm.ghost_size)
    return batch_size


def in_training(training: Reference, mean: np.ndarray, variance: np.ndarray) -> Affine:
    """The norm's map in training, with a batch's statistics.

    A frozen norm ignores them, and batch renorm corrects them within its bounds.
    """
    split = training.split
    if isinstance(split.norm, FrozenBatchNormalization):
        return split.evaluation()
    affine = training.affine(mean, variance)
    if isinstance(split.norm, BatchRenormalization):
        r_max, d_max = (float(ops.convert_to_numpy(bound)) for bound in split.norm.bounds())
        deviation = np.sqrt(variance + split.epsilon)
        moving_mean, moving_variance = split.moving
        moving_deviation = np.sqrt(moving_variance + split.epsilon)
        r = np.clip(deviation / moving_deviation, 1 / r_max, r_max)
        d = np.clip((mean - moving_mean) / moving_deviation, -d_max, d_max)
        return Affine(affine.mean, affine.scale * r, affine.shift + split.gain * d)
    return affine


@dataclass(eq=False)
class Noise:
    """The effect of random batch-mates on an example, on average over the examples.

    Attributes:
        batch_size: examples whose statistics the norm takes in training, the example included.
        draws: random sets of mates per example.
        logit_sd: root of the mean variance of a logit over the sets of mates.
        flipped: share of the answers that differ from the one with population statistics.
        variance: `(channels,)`, mean variance of the normalised value over the sets of mates, in units of
            the channel's own variance.
        distance: `(channels,)`, mean squared distance of the normalised value from the one with population
            statistics, in the same unit: `variance` and the squared bias. A unit that is alone in its batch
            has |z| = sqrt(B - 1), however large it is, so its bias is large and its variance is not.
        predicted: `(channels,)`, `variance` by `predicted_variance`; NaN for constant channels, for feature
            maps, whose positions are not independent, and for frozen norms and batch renorm.
        p_active: `(channels,)`, share of the examples on which the channel is not 0.
        class_examples: `(classes,)`, number of examples of each class; None without labels.
        flipped_by_class: `(classes,)`, `flipped` of each class, NaN without examples; None without labels.
        correct: share of correct answers with the statistics of a batch; None without labels.
        loss: mean loss with them; None without labels.
    """

    batch_size: float
    draws: int
    logit_sd: float
    flipped: float
    variance: np.ndarray
    distance: np.ndarray
    predicted: np.ndarray
    p_active: np.ndarray
    class_examples: np.ndarray | None = None
    flipped_by_class: np.ndarray | None = None
    correct: float | None = None
    loss: float | None = None

    @property
    def sd(self) -> float:
        """Root of the mean over channels of `variance`."""
        return _root_mean(self.variance)

    @property
    def predicted_sd(self) -> float:
        """Root of the mean over channels of `predicted`."""
        return _root_mean(self.predicted)

    @property
    def rare(self) -> np.ndarray:
        """`(channels,)` bool: active, but on fewer than 3 examples of a batch on average."""
        return (self.p_active > 0) & (self.batch_size * self.p_active < RARE)

    @property
    def rare_distance(self) -> float:
        """Root of the mean `distance` of the rarely active channels; NaN if there are none."""
        return _root_mean(self.distance[self.rare])

    @property
    def usual_distance(self) -> float:
        """The same of the other channels that are active; NaN if there are none."""
        return _root_mean(self.distance[~self.rare & (self.p_active > 0)])

    def flipped_third(self, *, rarest: bool) -> float:
        """`flipped` of the third of the classes with the fewest or with the most examples.

        NaN without labels, and if all classes have equally many examples.
        """
        if self.class_examples is None:
            return np.nan
        counts = self.class_examples[self.class_examples > 0]
        if len(counts) < 2 or counts.min() == counts.max():
            return np.nan
        size = max(1, len(counts) // 3)
        order = np.argsort(counts, kind="stable")
        classes = order[:size] if rarest else order[-size:]
        shares = self.flipped_by_class[self.class_examples > 0]
        return float(np.average(shares[classes], weights=counts[classes]))


def _root_mean(variances: np.ndarray) -> float:
    finite = variances[np.isfinite(variances)]
    return float(np.sqrt(finite.mean())) if len(finite) else np.nan


class NoiseSums:
    """Sums over batches, from which `Noise` is computed.

    Args:
        training: of the training data.
        batch_size: of the training.
        draws: random sets of mates for each batch of examples; at least 2.
        seed: of the sets.
    """

    def __init__(self, training: Reference, batch_size: int, draws: int = DRAWS, seed: int = 0):
        self._training, self._draws = training, draws
        self._number = examples_per_norm(training.split, batch_size)
        self._rng = np.random.default_rng(seed)
        self._sums: dict[str, Any] = dict.fromkeys(("examples", "logits", "flipped", "correct", "loss"), 0.0)
        self._variance = self._distance = self._predicted = 0.0
        self._by_class: np.ndarray | None = None
        # values of the norm's output per standard deviation of its input
        affine = training.affine(*training.population)
        self._unit = np.abs(affine.scale) * training.features.std

    def add(self, batch: Batch, population: np.ndarray) -> tuple[np.ndarray, Affine]:
        """Adds a batch.

        Args:
            batch: the batch.
            population: `(examples, outputs)`, its logits with population statistics.

        Returns:
            The logits with the first set of mates, `(examples, outputs)`, and the norm's map with it.
        """
        training, x = self._training, batch.features["features"]
        mates = round(self._number) - 1
        first, of_first, quiet = None, None, training.noiseless(x.astype("float64"))
        sums, squares, logits, logit_squares = 0.0, 0.0, 0.0, 0.0
        answers, flips = population.argmax(-1), np.zeros(len(batch))
        for row in training.mates.draw(self._rng, self._draws, mates):
            affine = in_training(training, *training.mates.statistics(x, row, mates))
            z, out = affine(x.astype("float64")), training.split.outputs(batch.features, affine)["logits"]
            if first is None:
                first, of_first = out, affine
            difference, change = z - quiet, out.astype("float64") - first
            sums, squares = sums + difference, squares + difference**2
            logits, logit_squares = logits + change, logit_squares + change**2
            flips += out.argmax(-1) != answers
            if batch.labels is not None:
                self._sums["correct"] += (out.argmax(-1) == batch.labels).sum()
                self._sums["loss"] += cross_entropy(out, batch.labels).sum()
        n = self._draws
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = len(batch), -1, x.shape[-1]
            variance = (squares - sums**2 / n) / (n - 1) / self._unit**2
            self._variance = self._variance + variance.reshape(rows).mean(1).sum(0)
            self._distance = self._distance + (squares / n / self._unit**2).reshape(rows).mean(1).sum(0)
            z = (x - training.features.mean) / training.features.std
        self._predicted = self._predicted + self._prediction(z, x)
        self._sums["examples"] += len(batch)
        self._sums["logits"] += ((logit_squares - logits**2 / n) / (n - 1)).mean(-1).sum()
        self._sums["flipped"] += flips.sum() / n
        if batch.labels is not None:
            if self._by_class is None:
                self._by_class = np.zeros((2, population.shape[-1]))
            np.add.at(self._by_class[0], batch.labels, 1)
            np.add.at(self._by_class[1], batch.labels, flips / n)
        return first, of_first

    def _prediction(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """`(channels,)`, sum over the examples of the predicted variance, for the norm's kind."""
        moments, norm, number = self._training.features, self._training.split.norm, self._number
        if x.ndim > 2 or isinstance(norm, FrozenBatchNormalization | BatchRenormalization):
            return np.full(x.shape[-1], np.nan)
        if isinstance(norm, BatchCentering):
            return np.full(x.shape[-1], len(x) / number)
        with np.errstate(invalid="ignore", divide="ignore"):
            if isinstance(norm, BatchScaling):
                return ((x / moments.std) ** 2 * (moments.kurtosis - 1) / 4 / number).sum(0)
            return predicted_variance(z, moments.skewness, moments.kurtosis, number).sum(0)

    def result(self) -> Noise:
        """The figures of all batches added."""
        examples, n = self._sums["examples"], self._draws
        by_class: dict[str, Any] = {}
        if self._by_class is not None:
            counts, flipped = self._by_class
            with np.errstate(invalid="ignore"):
                by_class = {"class_examples": counts.astype(int), "flipped_by_class": flipped / counts}
            by_class |= {name: self._sums[name] / examples / n for name in ("correct", "loss")}
        return Noise(
            self._number,
            n,
            float(np.sqrt(self._sums["logits"] / examples)),
            self._sums["flipped"] / examples,
            self._variance / examples,
            self._distance / examples,
            self._predicted / examples,
            self._training.features.p_active,
            **by_class,
        )


def batch_noise(
    model: keras.Model,
    data: Any,
    train: Any = None,
    *,
    training_batch: int,
    norm: str | None = None,
    draws: int = DRAWS,
    batch_size: int = 256,
    seed: int = 0,
) -> Noise:
    """How much an example's output depends on its batch-mates, by Monte Carlo.

    Each example is put into `draws` batches of `training_batch` examples with random mates. The head's norm
    normalises by the batch, as in training; all other layers are in evaluation mode. The rest of the model
    runs once. Without a norm, the noise is that of a norm that would be inserted (`heads.insert_bn`).

    Args:
        model: a functional model.
        data: examples to measure on, `(x, y)` or x.
        train: training data, from which mates are drawn; None for `data`.
        training_batch: batch size of the training.
        norm: name of the norm, as for `Split`.
        draws: sets of mates for each example; at least 2.
        batch_size: inputs at a time if data are arrays; no figure's expectation depends on it.
        seed: of the random mates.
    """
    training = reference(model, data if train is None else train, norm=norm, batch_size=batch_size, seed=seed)
    sums, affine = NoiseSums(training, training_batch, draws, seed), training.noiseless
    for batch in batches_of(training.split, data, batch_size):
        sums.add(batch, training.split.outputs(batch.features, affine)["logits"])
    return sums.result()


def rarely_active(moments: FeatureMoments, batch_size: int) -> np.ndarray:
    """`(channels,)` bool: channels that are active, but on fewer than 3 examples of a batch on average."""
    return (moments.p_active > 0) & (batch_size * moments.p_active < RARE)
