"""Margin, loss, temperature and calibration of a classifier's logits, in one pass. NumPy only."""

from dataclasses import dataclass

import numpy as np

from bnhead import seeds

BINS = 15  # of equal width, as Guo et al. 2017
REPEATS = 200  # simulated data sets of a calibrated model
# inverse temperatures at which the loss is summed; between them it is nearly a parabola
_INVERSE = np.geomspace(0.02, 50, 157)


@dataclass(frozen=True)
class Calibration:
    """How good and how sure a classifier is.

    Attributes:
        accuracy: share of correct answers.
        loss: mean negative log-likelihood.
        margin: mean distance of the logit of the label from the largest other one.
        temperature: by which logits are divided for the smallest loss; above 1 the model is too sure. NaN if
            the smallest loss is outside of 0.02 to 50.
        ece: expected calibration error, 15 bins of equal width.
        ece_floor: its mean for a perfectly calibrated model of the same confidences on equally many examples.
        ece_floor_high: the 95th percentile of that.
    """

    accuracy: float
    loss: float
    margin: float
    temperature: float
    ece: float
    ece_floor: float
    ece_floor_high: float

    @property
    def ece_excess(self) -> float:
        """`ece` minus `ece_floor`: the error without the part that few examples make."""
        return self.ece - self.ece_floor


class CalibrationSums:
    """Sums over batches, from which `Calibration` is computed. Their size does not depend on the examples.

    Args:
        seed: of the simulated floor.

    Reference: Guo, Pleiss, Sun & Weinberger 2017, arXiv 1706.04599, equations 3 and 9.
    """

    def __init__(self, seed: int = 0):
        self._rng = np.random.default_rng(seeds.stream(seed, "calibration"))
        self._examples = 0
        self._correct = self._margin = 0.0
        self._losses = np.zeros(len(_INVERSE))
        self._loss = 0.0
        self._bins = np.zeros((2, BINS))  # sums of confidence and of correct answers
        self._simulated = np.zeros((REPEATS, BINS))

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch: logits `(examples, classes)` and class numbers `(examples,)`."""
        logits, rows = logits.astype("float64"), np.arange(len(labels))
        logits = logits - logits.max(1, keepdims=True)
        right = logits[rows, labels]
        wrong = logits.copy()
        wrong[rows, labels] = -np.inf
        correct = logits.argmax(1) == labels
        self._examples += len(labels)
        self._correct += correct.sum()
        self._margin += (right - wrong.max(1)).sum()
        self._loss += (np.log(np.exp(logits).sum(1)) - right).sum()
        for i, inverse in enumerate(_INVERSE):
            self._losses[i] += (np.log(np.exp(logits * inverse).sum(1)) - right * inverse).sum()
        confidence = 1 / np.exp(logits).sum(1)  # of the largest logit, which is 0
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        np.add.at(self._bins[0], bins, confidence)
        np.add.at(self._bins[1], bins, correct)
        one_hot = np.eye(BINS)[bins]
        self._simulated += (self._rng.random((REPEATS, len(labels))) < confidence) @ one_hot

    def result(self) -> Calibration:
        """The figures of all batches added."""
        n, (confidence, correct) = self._examples, self._bins
        floors = np.abs(self._simulated - confidence).sum(1) / n
        return Calibration(
            float(self._correct / n),
            float(self._loss / n),
            float(self._margin / n),
            self._temperature(),
            float(np.abs(confidence - correct).sum() / n),
            float(floors.mean()),
            float(np.quantile(floors, 0.95)),
        )

    def _temperature(self) -> float:
        """The vertex of the parabola through the three best points, over the logarithm of the temperature."""
        best = int(self._losses.argmin())
        # answers that are all right: the loss falls to 0, by rounding before the end
        if best in (0, len(_INVERSE) - 1) or self._losses[-1] == self._losses[best]:
            return np.nan
        x, y = np.log(_INVERSE[best - 1 : best + 2]), self._losses[best - 1 : best + 2]
        a, b, _ = np.polyfit(x - x[1], y - y[1], 2)
        return float(np.exp(-(x[1] - b / (2 * a)))) if a > 0 else float(1 / _INVERSE[best])
