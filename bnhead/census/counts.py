"""The counts of one layer's units, and the figures they give: NumPy only.

Let `a[n, p, u]` be a layer's output after the activation for input n, position p (one position for a fully
connected layer, height x width of them for a feature map) and unit u. Unit u is *silent* on input n when
max over p of |a[n, p, u]| <= eps, with eps = 0 for ReLU. Everything below follows from sums over the inputs,
so counts of several batches, processes or replicas merge, in any order, and their memory grows with the units
and not with the inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from bnhead.census import keys
from bnhead.census.codeath import effective_patterns, phi_matrix
from bnhead.census.contiguity import Blocks, Runs, block_test, dead_runs
from bnhead.census.figures import OF_COUNTS, figures_at, rule_of_three
from bnhead.errors import UsageError

RARE = 0.01  # "rarely active": on fewer than 1 % of the inputs, Dohare et al. 2024, "Loss of plasticity"
CONSTANT = 1e-12  # a unit of at most this variance says the same about every input


@dataclass(eq=False)
class Moments:
    """Mean and squared deviations of each unit's values, in a form that merges without cancellation.

    Attributes:
        values: number of values (inputs x positions) that were seen.
        mean: `(units,)` float64.
        deviation: `(units,)` float64, the sum of squared differences from the mean.

    Reference: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1.
    """

    values: int
    mean: np.ndarray
    deviation: np.ndarray

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of values together."""
        values = self.values + other.values
        if not values:
            return self
        step = other.mean - self.mean
        between = step * step * (self.values * other.values / values)
        return Moments(
            values, self.mean + step * (other.values / values), self.deviation + other.deviation + between
        )

    @property
    def variance(self) -> np.ndarray:
        """`(units,)` float64, the biased variance."""
        return self.deviation / max(self.values, 1)


@dataclass(eq=False)
class Counts:
    """Counts of one layer on a set of inputs. Those in brackets are None where nobody asked for them.

    Attributes:
        inputs_by_silent: `(units + 1,)` int64; entry k is the number of inputs on which exactly k units were
            silent. A histogram, so that percentiles over the inputs are exact without keeping the inputs.
        active: `(units,)` int64, the inputs on which the unit was active at some position.
        saturated: `(units,)` int64, the inputs on which it was active at every position.
        runs: (`(2,)` float64, see `run_statistics`.)
        magnitude: (`(units,)` float64, sum over the inputs of the mean over the positions of |a|.)
        moments: (mean and deviations of the layer's values.)
        class_inputs: (`(classes,)` int64, inputs of each class.)
        class_active: (`(classes, units)` int64, inputs of the class on which the unit was active somewhere.)
        gradient: (`(units,)` float64, sum over inputs and positions of |dL / d pre-activation|.)
        together: (`(units, units)` int64, inputs on which both units were active somewhere.)
        groups: sizes of the groups of channels that were concatenated, empty for one group.
        first: index of the first of these inputs in the whole set.
        nonfinite: inputs for which a value up to this layer was NaN or infinite.
        first_nonfinite: index of the first such input in the whole set; None without one.
        nonfinite_at: name of the first layer at which that input's values were not finite.
        bad_weights: name of a weight that is not finite; empty without one.
    """

    inputs_by_silent: np.ndarray
    active: np.ndarray
    saturated: np.ndarray
    runs: np.ndarray | None = None
    magnitude: np.ndarray | None = None
    moments: Moments | None = None
    class_inputs: np.ndarray | None = None
    class_active: np.ndarray | None = None
    gradient: np.ndarray | None = None
    together: np.ndarray | None = None
    groups: tuple[int, ...] = ()
    first: int = 0
    nonfinite: int = 0
    first_nonfinite: int | None = None
    nonfinite_at: str = ""
    bad_weights: str = ""

    @classmethod
    def empty(cls, units: int) -> "Counts":
        """Counts of no inputs at all."""
        return cls(np.zeros(units + 1, np.int64), np.zeros(units, np.int64), np.zeros(units, np.int64))

    @classmethod
    def of_batch(
        cls,
        silent: np.ndarray,
        active: np.ndarray,
        saturated: np.ndarray,
        switches: np.ndarray | None = None,
        **optional: Any,
    ) -> "Counts":
        """Counts of one batch, where activations are at hand as arrays.

        Args:
            silent: `(batch,)` integers, the number of silent units per input.
            active: `(units,)`, number of inputs of the batch on which each unit was active somewhere.
            saturated: `(units,)`, number of inputs on which it was active everywhere.
            switches: `(batch,)` integers, the number of neighbours u, u + 1 of which one alone is silent;
                None counts no runs.
            optional: the other attributes.
        """
        size = len(active) + 1
        inputs = np.bincount(silent, minlength=size).astype(np.int64)
        counts = cls(inputs, np.asarray(active, np.int64), np.asarray(saturated, np.int64), **optional)
        if switches is not None:
            counts.runs = run_statistics(np.bincount(silent, np.asarray(switches) + 1, size), inputs)
        return counts

    def merge(self, other: "Counts") -> "Counts":
        """Counts of the inputs of both, as if they had been counted in one go; the order does not matter.

        Raises:
            UsageError: the other layer has another number of units, or groups of channels.
        """
        if not other.inputs or not self.inputs:
            kept = self if self.inputs else other
            return _with(kept, bad_weights=self.bad_weights or other.bad_weights)
        if self.units != other.units or self.groups != other.groups:
            raise UsageError(f"counts of {self.units} and of {other.units} units do not merge")
        earlier = min((self, other), key=lambda c: (c.first_nonfinite is None, c.first_nonfinite or 0))
        return Counts(
            **{name: _sum(getattr(self, name), getattr(other, name)) for name in _ADDED},
            moments=self.moments.merge(other.moments) if self.moments and other.moments else None,
            groups=self.groups,
            first=min(self.first, other.first),
            nonfinite=self.nonfinite + other.nonfinite,
            first_nonfinite=earlier.first_nonfinite,
            nonfinite_at=earlier.nonfinite_at,
            bad_weights=self.bad_weights or other.bad_weights,
        )

    @property
    def units(self) -> int:
        """Number of units: channels of a feature map, or of a fully connected layer's output."""
        return len(self.active)

    @property
    def inputs(self) -> int:
        """N, the number of inputs counted."""
        return int(self.inputs_by_silent.sum())

    @property
    def bound(self) -> float:
        """Rule of three: a unit dead on N inputs fires on less than 3/N of all inputs, at 95 % confidence."""
        return rule_of_three(self.inputs)

    @property
    def unknown(self) -> str:
        """Why nothing can be said about this layer; empty when something can.

        NaN is never dead: TensorFlow's fused CPU kernels turn it into 0, which looks like silence, so a value
        that is not finite in the weights, the inputs or a pre-activation up to this layer voids the count.
        """
        if not self.inputs:
            return "no inputs were counted"
        if self.bad_weights:
            return f"the model's weights are not finite, first {self.bad_weights}"
        if self.nonfinite:
            where = f", at {self.nonfinite_at}" if self.nonfinite_at else ""
            return (
                f"values are not finite on {self.nonfinite} inputs, first on input "
                f"{self.first_nonfinite}{where}"
            )
        return ""

    @property
    def dead(self) -> np.ndarray:
        """`(units,)` bool: silent on every input."""
        return self.active == 0

    @property
    def always_on(self) -> np.ndarray:
        """`(units,)` bool: active at every position of every input, where a ReLU is linear."""
        return self.saturated == self.inputs

    @property
    def rarely_active(self) -> np.ndarray:
        """`(units,)` bool: active on less than 1 % of the inputs; dead units are among them."""
        return self.active < RARE * self.inputs

    @property
    def scores(self) -> np.ndarray | None:
        """`(units,)` float64: mean |a| of the unit over that of the layer; None where it was not counted.

        Reference: Sokar et al. 2023, eq. 1. In a layer that is silent altogether every score is 0.
        """
        if self.magnitude is None:
            return None
        mean = self.magnitude.mean()
        return self.magnitude / mean if mean > 0 else np.zeros(self.units)

    def dormant(self, tau: float) -> np.ndarray:
        """`(units,)` bool: units whose score is at most `tau`.

        Raises:
            UsageError: the magnitudes were not counted.
        """
        if self.scores is None:
            raise UsageError("dormant units need the magnitudes, which were not counted")
        return self.scores <= tau

    @property
    def class_dead(self) -> np.ndarray | None:
        """`(classes, units)` bool: silent on all inputs of the class but not on all; None without labels.

        No unit is dead on a class of which there are no inputs.
        """
        if self.class_active is None:
            return None
        return (self.class_active == 0) & (self.class_inputs > 0)[:, None] & ~self.dead

    @property
    def class_activity(self) -> np.ndarray | None:
        """`(classes, units)` float64: share of the class's inputs on which the unit is active.

        NaN where the class has no inputs; None without labels.
        """
        if self.class_active is None:
            return None
        sizes = np.where(self.class_inputs > 0, self.class_inputs, np.nan)
        return self.class_active / sizes[:, None]

    @property
    def gradient_dead(self) -> np.ndarray | None:
        """`(units,)` bool: no input moves the unit's pre-activation; None where it was not counted."""
        return None if self.gradient is None else self.gradient == 0

    @property
    def constant(self) -> np.ndarray | None:
        """`(units,)` bool: variance of at most 1e-12, as a dead unit has behind a batch norm; None where it
        was not counted."""
        return None if self.moments is None else self.moments.variance <= CONSTANT

    @property
    def phi(self) -> np.ndarray | None:
        """`(units, units)` float64: correlation of the units' silences; None where it was not counted."""
        return None if self.together is None else phi_matrix(self.together, self.active, self.inputs)

    @property
    def patterns(self) -> float | None:
        """Effective number of independent patterns of silence; None where it was not counted."""
        return None if self.together is None else effective_patterns(self.phi)

    @property
    def dead_runs(self) -> Runs:
        """The runs of dead units, in the order of the units."""
        return dead_runs(self.dead)

    @property
    def blocks(self) -> Blocks | None:
        """The spread of the dead over the groups of channels; None where there is one group only."""
        return block_test(self.dead, self.groups) if self.groups else None

    def silent_share(self, percent: float) -> float:
        """Percentile over the inputs of the share of silent units, interpolated linearly as by NumPy."""
        rank = percent / 100 * (self.inputs - 1)
        cumulative = np.cumsum(self.inputs_by_silent)
        below, above = np.searchsorted(cumulative, [np.floor(rank), np.ceil(rank)], side="right")
        return float(below + (above - below) * (rank - np.floor(rank))) / self.units

    def figures(self) -> dict[str, float]:
        """The layer's figures by name, those of `bnhead.census.figures` of which what they need was counted.

        All are NaN when the count is `unknown`.
        """
        rows = [row for row in OF_COUNTS if row.is_counted(self)]
        if self.unknown:
            return dict.fromkeys((row.name for row in rows), float("nan"))
        return {row.name: float(row.formula(self)) for row in rows}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; what was not counted is left out."""
        return {
            spec.name: _plain(value)
            for spec in fields(self)
            if (value := getattr(self, spec.name)) is not None
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Counts":
        """What `to_dict` gave."""
        known = {spec.name for spec in fields(cls)}
        if strange := sorted(set(plain) - known):
            raise UsageError(f"counts have no {strange[0]!r}")
        return cls(**{name: _revived(name, value) for name, value in plain.items()})


def run_statistics(runs: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Inputs on which the Wald-Wolfowitz z of the number of runs is defined, and the sum of z over them.

    With k of D units silent, an exchangeable order has mean 1 + 2 k (D - k) / D runs; z is negative where
    silent units lie closer together than that. It is not defined where all units or none are silent. Mean and
    variance depend on k alone, so sums by k are all that z needs.

    Args:
        runs: `(D + 1,)`; entry k is the number of runs of both kinds, added up over the inputs with k silent
            units.
        inputs: `(D + 1,)`; entry k is the number of these inputs.

    Reference: Wald & Wolfowitz 1940, "On a test whether two samples are from the same population".
    """
    units = len(inputs) - 1
    silent = np.arange(units + 1)
    mean = 1 + 2.0 * silent * (units - silent) / units
    variance = (mean - 1) * (mean - 2) / max(units - 1, 1)
    defined = (variance > 0) & (inputs > 0)
    z = (runs - inputs * mean)[defined] / np.sqrt(variance[defined])
    return np.array([inputs[defined].sum(), z.sum()], np.float64)


_ADDED = (
    "inputs_by_silent",
    "active",
    "saturated",
    "runs",
    "magnitude",
    "class_inputs",
    "class_active",
    "gradient",
    "together",
)
_FLOATS = ("runs", "magnitude", "gradient")


def _sum(one, other):
    return None if one is None or other is None else one + other


def _with(counts: Counts, **changed: Any) -> Counts:
    values = {spec.name: getattr(counts, spec.name) for spec in fields(counts)}
    return Counts(**{**values, **changed})


def _plain(value: Any) -> Any:
    if isinstance(value, Moments):
        return {"values": value.values, "mean": value.mean.tolist(), "deviation": value.deviation.tolist()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _revived(name: str, value: Any) -> Any:
    if name == "moments":
        return Moments(value["values"], np.array(value["mean"]), np.array(value["deviation"]))
    if name == "groups":
        return tuple(value)
    return np.array(value, np.float64 if name in _FLOATS else np.int64) if name in _ADDED else value


@dataclass
class Census:
    """The counts of several layers on the same inputs.

    Attributes:
        layers: name of the layer -> its counts.
        not_looked_at: path of a layer -> why an activation there could not be seen.
        notes: what was decided, a line each: how labels were read, what is counted by row, which weights.
    """

    layers: dict[str, Counts] = field(default_factory=dict)
    not_looked_at: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def figures(self, names: Sequence[str] | None = None) -> dict[str, float]:
        """Every layer's figures under `dead/<layer>/<figure>`, the names in `logs` and in TensorBoard.

        Args:
            names: the figures to give; None for all.
        """
        return {
            keys.key(name, figure): value
            for name, counts in self.layers.items()
            for figure, value in counts.figures().items()
            if names is None or figure in names
        }

    def merge(self, other: "Census") -> "Census":
        """The census of both sets of inputs together; layers that only one of them has are kept."""
        names = list(dict.fromkeys([*self.layers, *other.layers]))
        layers = {
            name: self.layers[name].merge(other.layers[name])
            if name in self.layers and name in other.layers
            else self.layers.get(name, other.layers.get(name))
            for name in names
        }
        notes = list(dict.fromkeys([*self.notes, *other.notes]))
        return Census(layers, {**self.not_looked_at, **other.not_looked_at}, notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        layers = {name: counts.to_dict() for name, counts in self.layers.items()}
        return {"layers": layers, "not_looked_at": dict(self.not_looked_at), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Census":
        """What `to_dict` gave."""
        layers = {name: Counts.from_dict(counts) for name, counts in plain["layers"].items()}
        return cls(layers, dict(plain["not_looked_at"]), list(plain["notes"]))

    def __str__(self) -> str:
        lines = [_lines(name, counts) for name, counts in self.layers.items()]
        lines += [f"not looked at: {path or 'the model'}, {why}" for path, why in self.not_looked_at.items()]
        return "\n".join([*lines, *self.notes])


def _lines(name: str, counts: Counts) -> str:
    """A layer's table on end: a line for each figure, with what it means."""
    if counts.unknown:
        return f"{name}: unknown, {counts.unknown}"
    bound = f"a dead unit fires on less than {counts.bound:.2%} of inputs, at 95 %"
    lines = [f"{name}: {counts.units} units, {counts.inputs} inputs; {bound}"]
    values = counts.figures()
    for row in figures_at("tables"):
        if row.name in values:
            lines.append(f"  {row.heading:<19} {row.table_cell(values, counts.units):<15}  {row.meaning}")
    return "\n".join(lines)
