"""The scale of the logits: what norms of features and weights allow. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np


def scale_floor(scale: Any, classes: int) -> Any:
    """The smallest mean cross-entropy of balanced classes if |w_c| |h| <= `scale`, without a bias.

    log(1 + (C - 1) exp(-s C / (C - 1))): reached if features and weights lie on one frame.

    Reference: Wang et al. 2017 (NormFace), arXiv 1704.06369, proposition 2.
    """
    return np.log1p((classes - 1) * np.exp(-np.asarray(scale) * classes / (classes - 1)))


@dataclass(frozen=True)
class Scale:
    """The scale of the logits.

    Attributes:
        feature_norm: mean length of the output layer's input; NaN unless that is a vector.
        weight_norm: mean length of the output layer's weights of a class.
        logit_norm: mean length of the logits minus their mean.
        floor: `scale_floor` of the largest weight norm times the largest feature norm of these examples.
        beyond: share of the normalised values that are above sqrt(B - 1), which a batch of B cannot have.
    """

    feature_norm: float
    weight_norm: float
    logit_norm: float
    floor: float
    beyond: float


class ScaleSums:
    """Sums over batches, from which `Scale` is computed.

    Args:
        kernel: `(units, classes)`, of the output layer; None without one.
        batch_size: B, examples whose statistics the norm takes in training, times its positions.
    """

    def __init__(self, kernel: np.ndarray | None, batch_size: float):
        self._kernel, self._bound = kernel, np.sqrt(max(batch_size - 1, 0))
        self._examples = self._values = self._beyond = 0
        self._feature = self._largest = self._logit = 0.0
        self._classes = 2

    def add(self, output: np.ndarray | None, logits: np.ndarray, z: np.ndarray) -> None:
        """Adds a batch.

        Args:
            output: input of the output layer, `(examples, units)`; None or another rank without figures.
            logits: `(examples, classes)`.
            z: normalised values of the norm's input, without gamma and beta, `(examples, ..., channels)`.
        """
        lengths = np.full(len(logits), np.nan)
        if output is not None and output.ndim == 2:
            lengths = np.linalg.norm(output.astype("float64"), axis=1)
        logits = logits.astype("float64")
        self._classes = logits.shape[-1]
        self._examples += len(logits)
        self._feature += lengths.sum()
        self._largest = np.maximum(self._largest, lengths.max())
        self._logit += np.linalg.norm(logits - logits.mean(-1, keepdims=True), axis=-1).sum()
        self._values += z.size
        self._beyond += int((np.abs(z) > self._bound).sum())

    def result(self) -> Scale:
        """The figures of all batches added."""
        weights = np.nan if self._kernel is None else np.linalg.norm(self._kernel, axis=0)
        floor = np.nan
        if self._classes > 1:
            floor = float(scale_floor(np.max(weights) * self._largest, self._classes))
        return Scale(
            float(self._feature / self._examples),
            float(np.mean(weights)),
            float(self._logit / self._examples),
            floor,
            self._beyond / self._values,
        )
