"""Interventions on the same weights: what changes if one effect of the head's norm is taken away or added."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from bnhead import notebook
from bnhead.errors import UsageError
from bnhead.layers import BatchCentering, BatchScaling, FrozenBatchNormalization, fold_batch_norm
from bnhead.mechanisms.figures import INTERVENTIONS, effect_headings, effect_rows
from bnhead.mechanisms.gap import own_share
from bnhead.mechanisms.noise import examples_per_norm, in_training
from bnhead.mechanisms.population import Batch, Reference, batches_of, reference
from bnhead.mechanisms.split import Affine, Split, cross_entropy
from bnhead.texts import wrapped


@dataclass(frozen=True)
class Effect:
    """A model's figures after an intervention.

    Attributes:
        name: a key of `mechanisms.figures.INTERVENTIONS`.
        accuracy: share of correct answers.
        loss: mean cross-entropy.
        dead: share of the units of the last activation after the norm that are silent on every example; NaN
            without an activation there.
        flipped: share of the answers that differ from those without the intervention.
    """

    name: str
    accuracy: float
    loss: float
    dead: float
    flipped: float


@dataclass(frozen=True)
class Interventions:
    """The effects of all interventions that a model allows, "none" first.

    Attributes:
        layer: name of the norm; without one, of the Dense before which one would be.
        units: name of the activation whose dead units are counted; "" without one.
        examples: number of examples.
        effects: one for each intervention.
    """

    layer: str
    units: str
    examples: int
    effects: tuple[Effect, ...]

    def __getitem__(self, name: str) -> Effect:
        return next(effect for effect in self.effects if effect.name == name)

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of `rows`."""
        return effect_headings(counts_dead=bool(self.units))

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of a table: name, accuracy, loss, flipped answers, dead units if any can die, meaning."""
        return effect_rows([asdict(effect) for effect in self.effects], counts_dead=bool(self.units))

    @property
    def title(self) -> str:
        """The layer and the number of examples, in a line."""
        units = f"; dead units of {self.units}" if self.units else ""
        return f"interventions at {self.layer} on {self.examples:,} examples{units}"

    def __str__(self) -> str:
        table = [self.headings, *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.headings) - 1)]
        lines = [wrapped(self.title)]
        for name, *cells, meaning in table:
            numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
            start = f"{name:<{widths[0]}}  {numbers}  "
            lines.append(wrapped(start + meaning, hanging=len(start)))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return notebook.table(self.title, [(heading, "") for heading in self.headings], self.rows())


class _Sums:
    """The sums of one intervention over batches."""

    def __init__(self):
        self.correct, self.loss, self.flipped, self.active = 0, 0.0, 0, None

    def add(self, logits: np.ndarray, active: np.ndarray | None, batch: Batch) -> None:
        answers = logits.argmax(-1)
        self.correct += int((answers == batch.labels).sum())
        self.loss += float(cross_entropy(logits, batch.labels).sum())
        self.flipped += int((answers != batch.evaluation["logits"].argmax(-1)).sum())
        if active is not None:
            self.active = active if self.active is None else self.active | active

    def effect(self, name: str, examples: int) -> Effect:
        dead = np.nan if self.active is None else float(1 - self.active.mean())
        return Effect(name, self.correct / examples, self.loss / examples, dead, self.flipped / examples)


def interventions(
    model: keras.Model | Split,
    data: Any,
    train: Any = None,
    *,
    training_batch: int,
    norm: str | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Interventions:
    """The effect of interventions at the head's norm on accuracy, loss and dead units.

    Statistics are swapped, noise is added or removed, centring or scaling is removed, the norm is folded, the
    output bias made neutral; all on the same weights, one at a time, in evaluation mode. The backbone runs
    once, and once more for the folded copy. The model is not changed. Without a norm those that need one are
    left out, and "batch" adds the noise of a norm that would be inserted (`heads.insert_bn`).

    Centring and scaling are taken from weights that were trained with them: a large effect shows that
    these weights rely on them, not that a net trained without would be worse.

    Args:
        model, train, training_batch, norm, batch_size, seed: as for `measure`.
        data: `(x, y)` or batches of such tuples, with labels of classes.

    Raises:
        UsageError: as for `measure`; data without labels of classes.
    """
    training = reference(model, data if train is None else train, norm=norm, batch_size=batch_size, seed=seed)
    split = training.split
    affines = _affines(training, training_batch, seed)
    names = ["none", *affines, *(["neutral_bias"] if training.labels.any() else [])]
    sums, examples = {name: _Sums() for name in names}, 0
    change = _neutral(training) if "neutral_bias" in sums else None
    for batch in batches_of(split, data, batch_size):
        _require_labels(batch)
        base = batch.evaluation
        sums["none"].add(base["logits"], base.get("active"), batch)
        if change is not None:
            sums["neutral_bias"].add(base["logits"] + change, base.get("active"), batch)
        for name, affine in affines.items():
            outputs = split.outputs(batch.features, affine(batch.features["features"]))
            sums[name].add(outputs["logits"], outputs.get("active"), batch)
        examples += len(batch)
    if split.normalises:
        folded = fold_batch_norm(split.net, [split.norm.name])
        if not any(layer.name == split.norm.name for layer in folded.layers):
            sums["folded"] = _of_folded(folded, split, data, batch_size)
    ordered = [name for name in INTERVENTIONS if name in sums]
    effects = tuple(sums[name].effect(name, examples) for name in ordered)
    return Interventions(split.name, "" if split.site is None else split.site.name, examples, effects)


def _affines(
    training: Reference, training_batch: int, seed: int
) -> dict[str, Callable[[np.ndarray], Affine]]:
    """Name of each intervention on the statistics -> the norm's map of an input."""
    split, rng = training.split, np.random.default_rng(seed)
    number = round(examples_per_norm(split, training_batch)) - 1

    def of_batch(x):
        return in_training(
            training, *training.mates.statistics(x, training.mates.draw(rng, 1, number)[0], number)
        )

    affines: dict[str, Callable] = {"batch": of_batch}
    if not split.normalises:
        return affines
    moving = split.evaluation()
    deviation = np.sqrt(split.moving[1] + split.epsilon)
    if not isinstance(split.norm, BatchScaling):
        affines["no_centring"] = lambda x: Affine(np.zeros_like(moving.mean), moving.scale, moving.shift)
    if not isinstance(split.norm, BatchCentering):
        affines["no_scaling"] = lambda x: Affine(moving.mean, moving.scale * deviation, moving.shift)
    if not isinstance(split.norm, FrozenBatchNormalization):
        affines["population"] = lambda x: training.noiseless
        affines["own_share"] = lambda x: split.affine(*own_share(split, x, 1 / (number + 1)))
    return affines


def _neutral(training: Reference) -> np.ndarray:
    """`(classes,)`, the shift of the logits by a neutral bias: as `guess.neutralise`, in evaluation mode."""
    shares = np.maximum(training.labels / training.labels.sum(), 0.5 / training.features.examples)
    return np.log(shares) - training.logits


def _of_folded(folded: keras.Model, split: Split, data: Any, batch_size: int) -> _Sums:
    """The sums of a copy without the norm."""
    sums, copy = _Sums(), Split(folded)
    original = batches_of(split, data, batch_size)
    for batch, base in zip(batches_of(copy, data, batch_size), original, strict=True):
        batch.features, logits = base.features, batch.evaluation["logits"]
        active, batch.evaluation = batch.evaluation.get("active"), base.evaluation
        sums.add(logits, active, batch)
    return sums


def _require_labels(batch: Batch) -> None:
    if batch.labels is None:
        raise UsageError("interventions need labels of classes: data must be (x, y)")
