"""The gap between training and evaluation: the same weights with other statistics in the head's norm."""

from dataclasses import dataclass

import numpy as np

from bnhead.census.counts import Moments
from bnhead.mechanisms.averages import AverageBias
from bnhead.mechanisms.population import Batch, Reference
from bnhead.mechanisms.split import Affine, Split, cross_entropy

STATISTICS = ("moving", "batch", "population", "own_share")


@dataclass(frozen=True)
class Gap:
    """Accuracy and loss by the statistics that the norm takes, on the same weights and examples.

    Attributes:
        accuracy, loss: a member of `STATISTICS` -> value; empty without labels.
        cka: linear CKA of the norm's output with moving averages and with those of a batch, in [0, 1]: 1 if
            they differ by a rotation and a scale of all channels alike.
        averages: the bias of the moving averages.
    """

    accuracy: dict[str, float]
    loss: dict[str, float]
    cka: float
    averages: AverageBias


def own_share(split: Split, x: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Moving statistics in which each example has a share, as it has in a batch in training.

    Its first and second moments are averaged with the moving ones.

    Args:
        split: a model with a norm.
        x: input of the norm, `(examples, ..., channels)`.
        share: of the example, 1 / B for the share that it has in a batch of B.

    Returns:
        Mean and variance of each example, two `(examples, channels)` float64.

    Reference: Summers & Dinneen 2020, arXiv 1906.03548, section 3.1, equations 1 and 2.
    """
    mean, variance = split.moving
    centred = x.reshape(len(x), -1, x.shape[-1]).astype("float64") - mean
    step = share * centred.mean(1)
    second = share * (centred**2).mean(1) + (1 - share) * variance  # around the moving mean: no cancellation
    return mean + step, second - step**2


class GapSums:
    """Sums over batches, from which `Gap` is computed.

    Args:
        training: of the training data, of a model with a norm.
        share: of an example in its batch, 1 / B.
    """

    def __init__(self, training: Reference, share: float):
        self._training, self._share = training, share
        self._examples, self._correct, self._loss = (
            0,
            dict.fromkeys(STATISTICS, 0.0),
            dict.fromkeys(STATISTICS, 0.0),
        )
        self._both: Moments | None = None

    def add(self, batch: Batch, population: np.ndarray, in_batch: np.ndarray, affine: Affine) -> None:
        """Adds a batch.

        Args:
            batch: the batch.
            population: its logits with population statistics.
            in_batch: its logits with the statistics of random batches.
            affine: the norm's maps with these.
        """
        split, x = self._training.split, batch.features["features"]
        wide = x.astype("float64")
        pair = np.concatenate([split.evaluation()(wide), affine(wide)], -1).reshape(-1, 2 * x.shape[-1])
        mean = pair.mean(0)
        moments = Moments(len(pair), mean, (pair - mean).T @ (pair - mean))
        self._both = moments if self._both is None else self._both.merge(moments)
        if batch.labels is None:
            return
        excluded = split.outputs(batch.features, split.affine(*own_share(split, x, self._share)))["logits"]
        logits = batch.evaluation["logits"], in_batch, population, excluded
        self._examples += len(batch)
        for name, of_statistics in zip(STATISTICS, logits, strict=True):
            self._correct[name] += (of_statistics.argmax(-1) == batch.labels).sum()
            self._loss[name] += cross_entropy(of_statistics, batch.labels).sum()

    def result(self) -> Gap:
        """The figures of all batches added."""
        n = self._examples
        means = [
            {name: float(s / n) for name, s in sums.items()} for sums in (self._correct, self._loss) if n
        ]
        accuracy, loss = means or ({}, {})
        averages = AverageBias.of(self._training.split.moving, self._training.population)
        return Gap(accuracy, loss, linear_cka(self._both.squares), averages)


def linear_cka(scatter: np.ndarray) -> float:
    """Linear CKA of two centred sets of features: ||Y'X||^2 / (||X'X|| ||Y'Y||).

    Args:
        scatter: `(2 channels, 2 channels)`, products of the differences from the mean of [X, Y].

    Reference: Kornblith et al. 2019, arXiv 1905.00414, section 3.
    """
    half = len(scatter) // 2
    norms = [
        np.linalg.norm(scatter[a, b])
        for a in (slice(half), slice(half, None))
        for b in (slice(half), slice(half, None))
    ]
    product = norms[0] * norms[3]
    return float(norms[1] ** 2 / product) if product else np.nan
