"""All measurements of a trained model: one pass over training data, one over the examples to measure on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bnhead import notebook
from bnhead.mechanisms.backward import GradientNorms, gradient_norms
from bnhead.mechanisms.calibration import Calibration, CalibrationSums
from bnhead.mechanisms.collapse import Collapse, effective_rank, neural_collapse
from bnhead.mechanisms.decay import Decay, effective_decay
from bnhead.mechanisms.dropout import VarianceShift, variance_shift
from bnhead.mechanisms.figures import FIGURES, check_groups, figures_of
from bnhead.mechanisms.gap import Gap, GapSums
from bnhead.mechanisms.guess import Guess, GuessSums
from bnhead.mechanisms.moments import FeatureMoments
from bnhead.mechanisms.noise import DRAWS, Noise, NoiseSums, examples_per_norm
from bnhead.mechanisms.population import Batch, Reference, batches_of, reference
from bnhead.mechanisms.scale import Scale, ScaleSums
from bnhead.mechanisms.split import Split
from bnhead.texts import wrapped


@dataclass(frozen=True)
class Ranks:
    """Effective ranks of the output layer's input, with its mean subtracted and without."""

    centred: float
    uncentred: float


@dataclass(eq=False)
class Measured:
    """The measurements of a model. A group is None if it was not asked for, or the model or data lack it.

    Attributes:
        layer: name of the norm; without one, of the Dense before which one would be.
        has_norm: whether the model has a batch norm in its head.
        examples: number of examples measured on.
        reference_examples: number of training examples that gave the population statistics.
        noise, gap, guess, scale, calibration, gradients, collapse, decay: see their classes.
        inputs: moments of the input of the first Dense after the norm, on the training examples.
        dropout: name of each norm after dropout -> its variance shift.
        ranks: effective ranks.
        nc4: share of the examples for which the output layer, with its bias, and the nearest class mean of
            the training examples answer differently.
    """

    layer: str
    has_norm: bool
    examples: int
    reference_examples: int
    noise: Noise | None = None
    gap: Gap | None = None
    guess: Guess | None = None
    scale: Scale | None = None
    calibration: Calibration | None = None
    inputs: FeatureMoments | None = None
    gradients: GradientNorms | None = None
    dropout: dict[str, VarianceShift] | None = None
    ranks: Ranks | None = None
    collapse: Collapse | None = None
    nc4: float = np.nan
    decay: Decay | None = None

    def figures(self) -> dict[str, float]:
        """Name -> value of every figure that is defined, in the order of the table."""
        return figures_of(self)

    @property
    def title(self) -> str:
        """The layer and the numbers of examples, in a line."""
        norm = "norm" if self.has_norm else "no norm; one would be before"
        return (
            f"{norm} {self.layer}; {self.examples:,} examples, "
            f"statistics of {self.reference_examples:,} training examples"
        )

    def rows(self) -> list[tuple[str, str, str]]:
        """Heading, value as text and meaning of every figure that is defined."""
        values = self.figures()
        return [
            (row.heading, row.text(values[row.name]), row.meaning) for row in FIGURES if row.name in values
        ]

    def __str__(self) -> str:
        rows = self.rows()
        width = max((len(heading) for heading, _, _ in rows), default=0)
        lines = [
            wrapped(f"{h:<{width}} {text:>9}  {meaning}", hanging=width + 12) for h, text, meaning in rows
        ]
        return "\n".join([wrapped(self.title), *lines])

    def _repr_html_(self) -> str:
        headings = ("figure", ""), ("value", ""), ("meaning", "")
        return notebook.table(self.title, headings, self.rows())


def measure(
    model: keras.Model | Split,
    data: Any,
    train: Any = None,
    groups: Iterable[str] | str = "all",
    *,
    training_batch: int,
    norm: str | None = None,
    draws: int = DRAWS,
    batch_size: int = 256,
    seed: int = 0,
) -> Measured:
    """Measures what the batch norm of a model's head does, or what one would do there.

    The model is in evaluation mode unless a figure needs training mode, and is not changed. Memory: a batch
    of features, and a few matrices of features x features.

    Args:
        model: a functional model, trained or not, with a batch norm in its head or without.
        data: labelled examples to measure on, as for `census.count`. They are read once, for "gradients" and
            "dropout" twice. Without labels of classes, figures that need them are left out.
        train: training data, for population statistics, class means and batch-mates; None for `data`.
        groups: names of `figures.GROUPS`, or "all".
        training_batch: batch size of the training.
        norm: name of the norm, as for `Split`; None for the last one in the head.
        draws: random sets of batch-mates for each example.
        batch_size: inputs at a time if data are arrays.
        seed: of the random mates and of the simulated calibration.

    Raises:
        UsageError: a model without a head, an unknown group, data that do not fit or are not finite.
    """
    groups = check_groups(groups)
    training = reference(model, data if train is None else train, norm=norm, batch_size=batch_size, seed=seed)
    split = training.split
    sums = _Sums(training, groups, training_batch, draws, seed)
    for batch in batches_of(split, data, batch_size):
        sums.add(batch)
    measured = sums.result()
    if "gradients" in groups and sums.labelled:
        measured.gradients = gradient_norms(split, data, training_batch=training_batch)
    if "dropout" in groups:
        measured.dropout = variance_shift(split.model, data, batch_size=batch_size, seed=seed) or None
    return measured


class _Sums:
    """The sums of every group that reads the same batches."""

    def __init__(
        self, training: Reference, groups: tuple[str, ...], training_batch: int, draws: int, seed: int
    ):
        self._training, self._groups, self.labelled = training, groups, False
        split = training.split
        per_norm = examples_per_norm(split, training_batch)
        self._kernel = None
        if split.output is not None:
            self._kernel = np.asarray(keras.ops.convert_to_numpy(split.output.kernel), "float64")
        self._examples = self._disagreeing = self._compared = 0
        self._noise = self._gap = None
        if {"noise", "gap"} & set(groups):
            self._noise = NoiseSums(training, training_batch, draws, seed)
        if "gap" in groups and split.normalises:
            self._gap = GapSums(training, 1 / per_norm)
        positions = training.features.positions
        self._scale = ScaleSums(self._kernel, per_norm * positions) if "scale" in groups else None
        self._calibration = CalibrationSums(seed) if "calibration" in groups else None
        outputs = split.net.outputs[0].shape
        self._is_classifier = len(outputs) == 2 and outputs[1] > 1
        self._guess = GuessSums(outputs[1]) if "guess" in groups and self._is_classifier else None

    def add(self, batch: Batch) -> None:
        """Adds a batch to every sum."""
        training, x = self._training, batch.features["features"]
        logits = batch.evaluation["logits"]
        self._examples += len(batch)
        self.labelled = self.labelled or batch.labels is not None
        if self._noise is not None:
            population = training.split.outputs(batch.features, training.noiseless)["logits"]
            in_batch, affine = self._noise.add(batch, population)
            if self._gap is not None:
                self._gap.add(batch, population, in_batch, affine)
        if self._guess is not None:
            self._guess.add(logits, batch.labels)
        if self._scale is not None:
            mean, variance = training.split.moving if training.split.normalises else training.population
            z = (x - mean) / np.sqrt(variance + training.split.epsilon)
            self._scale.add(batch.evaluation.get("output"), logits, z)
        if self._calibration is not None and batch.labels is not None:
            self._calibration.add(logits, batch.labels)
        if "collapse" in self._groups and training.output is not None:
            self._compare(batch)

    def _compare(self, batch: Batch) -> None:
        """Counts for NC4 the examples whose nearest class mean is not the answer, bias included."""
        means, present = self._training.output.means, self._training.output.counts > 0
        read = batch.evaluation["output"].astype("float64")
        # |h - m|^2 less |h|^2; of a class without examples infinite
        distances = np.where(present, (means**2).sum(1), np.inf) - 2 * read @ means.T
        self._disagreeing += int((distances.argmin(1) != batch.evaluation["logits"].argmax(1)).sum())
        self._compared += len(batch)

    def result(self) -> Measured:
        """The figures of all batches added."""
        training, split, groups = self._training, self._training.split, self._groups
        measured = Measured(split.name, split.norm is not None, self._examples, training.features.examples)
        measured.noise = self._noise.result() if "noise" in groups else None
        measured.gap = None if self._gap is None else self._gap.result()
        measured.guess = None if self._guess is None else self._guess.result()
        measured.scale = None if self._scale is None else self._scale.result()
        if self._calibration is not None and self.labelled:
            measured.calibration = self._calibration.result()
        measured.inputs = training.fc if "inputs" in groups else None
        measured.decay = effective_decay(split) if "decay" in groups else None
        if training.output is None:
            return measured
        if "rank" in groups:
            ranks = (effective_rank(training.output, centred=centred) for centred in (True, False))
            measured.ranks = Ranks(*ranks)
        if "collapse" in groups:
            measured.collapse = neural_collapse(training.output, self._kernel)
            measured.nc4 = self._disagreeing / self._compared
        return measured
