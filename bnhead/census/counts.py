"""The counts of one layer's units and the figures computed from them. NumPy and SciPy only.

Let `a[n, p, u]` be a layer's output after the activation for input n, position p (one position for a fully
connected layer, height x width positions for a feature map) and unit u. Unit u is *silent* on input n if
max over p of |a[n, p, u]| <= eps, with eps = 0 for ReLU. All counts are sums over inputs, so the counts of
several batches, processes or replicas merge in any order, and memory grows with the units, not the inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bnhead.census.accumulation import Accumulation, Unseen, chao2
from bnhead.census.clones import CLONES, correlations, groups_of, pairs_of
from bnhead.census.codeath import effective_patterns, phi_matrix
from bnhead.census.contiguity import Blocks, Runs, block_test, dead_runs
from bnhead.census.figures import OF_COUNTS, rule_of_three
from bnhead.errors import UsageError, nearest
from bnhead.texts import counted

if TYPE_CHECKING:
    pass

RARE = 0.01  # "rarely active": on fewer than 1 % of the inputs, Dohare et al. 2024, "Loss of plasticity"
CONSTANT = 1e-12  # largest variance of a constant unit
DORMANT = 0.025  # threshold of the dormant group, the smaller one of Sokar et al. 2023
BIAS_DEAD, WEIGHT_DEAD = 1, 2  # causes of certified units; 0 is not certified


@dataclass(eq=False)
class Moments:
    """Mean and sum of squares of each unit's values, or of all products of two, merged without cancellation.

    Attributes:
        values: number of values (inputs x positions).
        mean: `(units,)` float64.
        squares: `(units,)` float64, sum of squared differences from the mean; or `(units, units)`, the sums
            of the products of two units' differences, whose diagonal these are.

    Reference: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1.
    """

    values: int
    mean: np.ndarray
    squares: np.ndarray

    def merge(self, moments: "Moments", maximum: Callable = np.maximum) -> "Moments":
        """Moments of the values of both.

        Args:
            moments: those of further values.
            maximum: `keras.ops.maximum` if the attributes are tensors.
        """
        values = self.values + moments.values
        share = moments.values / maximum(values, 1)  # both may be empty
        step = moments.mean - self.mean
        product = step[:, None] * step if len(self.squares.shape) == 2 else step * step
        between = product * self.values * share
        return Moments(values, self.mean + step * share, self.squares + moments.squares + between)

    @property
    def variance(self) -> np.ndarray:
        """`(units,)` float64, the biased variance."""
        squares = np.diagonal(self.squares) if self.squares.ndim == 2 else self.squares
        return squares / max(self.values, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; of a matrix, which is symmetric, the rows from the diagonal on."""
        deviation = self.squares.tolist()
        if self.squares.ndim == 2:
            deviation = [row[number:] for number, row in enumerate(deviation)]
        return {"values": self.values, "mean": self.mean.tolist(), "deviation": deviation}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Moments":
        """Inverse of `to_dict`."""
        squares = plain["deviation"]
        if squares and isinstance(squares[0], list):
            squares = [[0.0] * number + row for number, row in enumerate(squares)]
            upper = np.array(squares)
            squares = upper + np.triu(upper, 1).T
        return cls(plain["values"], np.array(plain["mean"]), np.array(squares))


@dataclass(eq=False)
class Counts:
    """Counts of one layer on a set of inputs. Attributes in brackets are None unless counted.

    Attributes:
        inputs_by_silent: `(units + 1,)` int64; entry k is the number of inputs on which exactly k units were
            silent. From this histogram, percentiles over inputs are exact.
        active: `(units,)` int64, inputs on which the unit was active at some position.
        active_everywhere: `(units,)` int64, inputs on which it was active at every position; "saturated" in
            files.
        runs: (`(2,)` float64, see `run_statistics`.)
        magnitude: (`(units,)` float64, sum over inputs of the mean over positions of |a|.)
        moments: (moments of the layer's values.)
        comoments: (those of every pair of units, over inputs and positions; masked positions do not count.)
        class_inputs: (`(classes,)` int64, inputs of each class.)
        class_active: (`(classes, units)` int64, inputs of the class on which the unit was active somewhere.)
        gradient: (`(units,)` float64, sum over inputs and positions of |dL / d pre-activation|, with the loss
            L of the input.)
        output_gradient: (the same of |dL / d output|, after the activation.)
        ablated_loss: (`(3,)` float64, change of the loss when a group of `figures.ABLATED` is set to 0. A
            merge has none, since the groups of its parts differ.)
        ablated_metric: (the same of the model's first metric.)
        together: (`(units, units)` int64, inputs on which both units were active somewhere.)
        accumulation: (the first input on which each unit was active; None too if the inputs have no order, as
            in a training step, or if the counts of the same indices were merged.)
        causes: (`(units,)` int64, why a unit cannot fire on any input, `BIAS_DEAD` or `WEIGHT_DEAD`; 0 for a
            unit that perhaps can; see `bnhead.census.certificates`.)
        groups: sizes of the groups of channels that were concatenated; empty for one group.
        first: index of the first of these inputs in the full set.
        nonfinite: inputs for which a value in or before this layer was NaN or infinite.
        first_nonfinite: index of the first such input in the full set; None if all are finite.
        nonfinite_at: name of the first layer at which that input's values were not finite.
        bad_weights: name of a weight that is not finite; empty if all are finite.
    """

    inputs_by_silent: np.ndarray
    active: np.ndarray
    active_everywhere: np.ndarray
    runs: np.ndarray | None = None
    magnitude: np.ndarray | None = None
    moments: Moments | None = None
    comoments: Moments | None = None
    class_inputs: np.ndarray | None = None
    class_active: np.ndarray | None = None
    gradient: np.ndarray | None = None
    output_gradient: np.ndarray | None = None
    ablated_loss: np.ndarray | None = None
    ablated_metric: np.ndarray | None = None
    together: np.ndarray | None = None
    accumulation: Accumulation | None = None
    causes: np.ndarray | None = None
    groups: tuple[int, ...] = ()
    first: int = 0
    nonfinite: int = 0
    first_nonfinite: int | None = None
    nonfinite_at: str = ""
    bad_weights: str = ""

    @classmethod
    def empty(cls, units: int) -> "Counts":
        """Counts of zero inputs."""
        return cls(np.zeros(units + 1, np.int64), np.zeros(units, np.int64), np.zeros(units, np.int64))

    def merge(self, counts: "Counts") -> "Counts":
        """Counts of the inputs of both, in either order.

        Raises:
            UsageError: the numbers of units or the groups of channels differ.
        """
        bad_weights = self.bad_weights or counts.bad_weights
        if not counts.inputs or not self.inputs:
            return replace(self if self.inputs else counts, bad_weights=bad_weights)
        if self.units != counts.units or self.groups != counts.groups:
            raise UsageError(f"counts of {self.units} and of {counts.units} units do not merge")
        pairs = {name: (getattr(self, name), getattr(counts, name)) for name in _SUMS}
        earlier = min((self, counts), key=lambda c: (c.first_nonfinite is None, c.first_nonfinite or 0))
        return Counts(
            **{name: None if a is None or b is None else a + b for name, (a, b) in pairs.items()},
            **{
                name: a.merge(b) if (a := getattr(self, name)) and (b := getattr(counts, name)) else None
                for name in _MERGED
            },
            causes=None
            if self.causes is None or counts.causes is None
            else np.minimum(self.causes, counts.causes),
            groups=self.groups,
            first=min(self.first, counts.first),
            nonfinite=self.nonfinite + counts.nonfinite,
            first_nonfinite=earlier.first_nonfinite,
            nonfinite_at=earlier.nonfinite_at,
            bad_weights=bad_weights,
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
    def joint_bound(self) -> float:
        """Each of the k dead units fires on less than -ln(0.05 / k) / N of all inputs, all k at once at 95 %
        confidence. `bound` if at most one unit is dead."""
        return rule_of_three(self.inputs, int(self.dead.sum()))

    @property
    def unseen(self) -> Unseen:
        """The dead units that would fire on further inputs, at least (`bnhead.census.accumulation.chao2`)."""
        return chao2(self.active, self.inputs)

    def dead_after(self, inputs: int) -> np.ndarray:
        """`(units,)` bool: silent on each of the first so many inputs.

        Two layers or models are compared on equally many inputs.

        Args:
            inputs: n, at most the number counted.

        Raises:
            UsageError: fewer inputs were counted, or the inputs have no order.
        """
        if self.accumulation is None:
            raise UsageError(
                "dead_after needs the order of the inputs: count with data, parts of a set with `first`"
            )
        return self.accumulation.dead_after(inputs)

    @property
    def unknown(self) -> str:
        """Why this layer's count is void; empty if it is valid.

        NaN is never dead. TensorFlow's fused CPU kernels turn it into 0, which looks like silence. So a value
        that is not finite in the weights, the inputs or a pre-activation in or before this layer voids the
        count.
        """
        if not self.inputs:
            return "no inputs were counted"
        if self.bad_weights:
            return f"the model's weights are not finite, first {self.bad_weights}"
        if self.nonfinite:
            layer = f", at {self.nonfinite_at}" if self.nonfinite_at else ""
            return (
                f"values are not finite on {counted(self.nonfinite, 'input')}, first on input "
                f"{self.first_nonfinite}{layer}"
            )
        return ""

    @property
    def dead(self) -> np.ndarray:
        """`(units,)` bool: silent on every input."""
        return self.active == 0

    @property
    def always_on(self) -> np.ndarray:
        """`(units,)` bool: active at every position of every input; such a ReLU is linear."""
        return self.active_everywhere == self.inputs

    @property
    def rarely_active(self) -> np.ndarray:
        """`(units,)` bool: active on less than 1 % of the inputs; includes dead units."""
        return self.active_below(RARE)

    def active_below(self, share: float) -> np.ndarray:
        """`(units,)` bool: active on less than this share of the inputs; includes dead units.

        Args:
            share: in (0, 1].

        Raises:
            UsageError: `share` is out of range.
        """
        if not 0 < share <= 1:  # also for NaN
            raise UsageError(f"share must be in (0, 1], got {share}")
        return self.active < share * self.inputs

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Which units are dead, rarely active, ...: name -> `(units,)` bool, of all that was counted."""
        masks = {name: getattr(self, name) for name in _MASKS}
        return {name: mask for name, mask in masks.items() if mask is not None}

    def indices(self, name: str) -> np.ndarray:
        """The units of one of `masks`, `(k,)` int64 indices: `counts.indices("dead")`.

        Raises:
            UsageError: an unknown mask, or one that was not counted.
        """
        masks = self.masks
        if name not in masks:
            raise UsageError(f"mask {name!r} was not counted{nearest(name, masks)} ({', '.join(masks)})")
        return np.flatnonzero(masks[name])

    @property
    def scores(self) -> np.ndarray | None:
        """`(units,)` float64: mean |a| of the unit over that of the layer; None unless counted.

        Reference: Sokar et al. 2023, eq. 1. If the layer is silent on every input, all scores are 0.
        """
        return _over_mean(self.magnitude)

    def dormant(self, tau: float) -> np.ndarray:
        """`(units,)` bool: units whose score is at most `tau`.

        Raises:
            UsageError: the magnitudes were not counted.
        """
        if self.scores is None:
            raise UsageError("dormant units need the magnitudes, which were not counted")
        return self.scores <= tau

    @property
    def ablation_groups(self) -> tuple[np.ndarray, ...]:
        """`(units,)` bool of each group of `figures.ABLATED`; without magnitudes nothing is dormant."""
        dormant = np.zeros(self.units, bool) if self.magnitude is None else self.dormant(DORMANT)
        return self.dead, dormant, self.rarely_active

    @property
    def class_dead(self) -> np.ndarray | None:
        """`(classes, units)` bool: silent on all inputs of the class but not on all inputs.

        False for a class without inputs; None without labels.
        """
        if self.class_active is None:
            return None
        return (self.class_active == 0) & (self.class_inputs > 0)[:, None] & ~self.dead

    @property
    def class_activity(self) -> np.ndarray | None:
        """`(classes, units)` float64: share of the class's inputs on which the unit is active.

        NaN for a class without inputs; None without labels.
        """
        if self.class_active is None:
            return None
        sizes = np.where(self.class_inputs > 0, self.class_inputs, np.nan)
        return self.class_active / sizes[:, None]

    @property
    def gradient_dead(self) -> np.ndarray | None:
        """`(units,)` bool: the loss does not depend on the unit's pre-activation; None unless counted."""
        return None if self.gradient is None else self.gradient == 0

    @property
    def gradient_scores(self) -> np.ndarray | None:
        """`(units,)` float64: mean |dL/da| of the unit's output a over the layer's; None unless counted.

        Of a feature map, the mean is over inputs and positions. If the loss depends on no unit of the layer,
        all scores are 0. L is the loss of each input alone.

        Reference: GraMa, Liu et al. 2025, "Measure gradients, not activations!", arXiv 2505.24061.
        """
        return _over_mean(self.output_gradient)

    def gradient_dormant(self, tau: float) -> np.ndarray:
        """`(units,)` bool: units whose gradient score is at most `tau`.

        Raises:
            UsageError: the gradients were not counted.
        """
        if self.gradient_scores is None:
            raise UsageError("gradient-dormant units need the gradients: count with gradients=True")
        return self.gradient_scores <= tau

    @property
    def certified(self) -> np.ndarray | None:
        """`(units,)` bool: dead, and no input can make it fire; None unless the layer has a certificate."""
        return None if self.causes is None else self.dead & (self.causes > 0)

    @property
    def weight_dead(self) -> np.ndarray | None:
        """`(units,)` bool: certified, with almost no incoming weights; None without a certificate."""
        return None if self.causes is None else self.dead & (self.causes == WEIGHT_DEAD)

    @property
    def bias_dead(self) -> np.ndarray | None:
        """`(units,)` bool: certified, by a bias that outweighs its weights; None without a certificate."""
        return None if self.causes is None else self.dead & (self.causes == BIAS_DEAD)

    @property
    def unused(self) -> np.ndarray | None:
        """`(units,)` bool: dead on these inputs, but not certified; None without a certificate."""
        return None if self.causes is None else self.dead & (self.causes == 0)

    @property
    def constant(self) -> np.ndarray | None:
        """`(units,)` bool: variance of at most 1e-12, as of a dead unit after a batch norm.

        None unless counted.
        """
        return None if self.moments is None else self.moments.variance <= CONSTANT

    @property
    def correlations(self) -> np.ndarray | None:
        """`(units, units)` float64: Pearson's correlation of the units' outputs; None unless counted.

        Over all inputs, and over all positions of a feature map. NaN for dead and other constant units.
        """
        if self.comoments is None:
            return None
        return correlations(self.comoments.squares, self.comoments.variance <= CONSTANT)

    @property
    def cloned(self) -> np.ndarray | None:
        """`(units,)` bool: another unit's output correlates with this one's by at least 0.99.

        None unless counted. Dead and other constant units are not clones.

        Reference: "cloned units" of arXiv 2510.00304, 2025, which names frozen units as another trap.
        """
        if self.comoments is None:
            return None
        return np.bincount(self.clone_pairs().ravel(), minlength=self.units) > 0

    def clone_pairs(self, least: float = CLONES) -> np.ndarray:
        """`(pairs, 2)` int64: indices of the pairs of units whose outputs correlate by at least `least`.

        Raises:
            UsageError: the correlations were not counted.
        """
        if self.comoments is None:
            raise UsageError("clones need the correlations of the units: count with clones=True")
        return pairs_of(self.correlations, least)

    def clone_groups(self, least: float = CLONES) -> list[np.ndarray]:
        """Indices of the units of each group of clones: units that a chain of `clone_pairs` connects.

        Raises:
            UsageError: the correlations were not counted.
        """
        return groups_of(self.clone_pairs(least), self.units)

    @property
    def phi(self) -> np.ndarray | None:
        """`(units, units)` float64: correlation of the units' silences; None unless counted."""
        return None if self.together is None else phi_matrix(self.together, self.active, self.inputs)

    @property
    def patterns(self) -> float | None:
        """Effective number of independent patterns of silence; None unless counted."""
        return None if self.together is None else effective_patterns(self.phi)

    @property
    def dead_runs(self) -> Runs:
        """The runs of dead units, in the order of the units."""
        return dead_runs(self.dead)

    @property
    def blocks(self) -> Blocks | None:
        """The distribution of dead units over the groups of channels; None for a single group."""
        return block_test(self.dead, self.groups) if self.groups else None

    def silent_share(self, percent: float) -> float:
        """Percentile over inputs of the share of silent units, interpolated linearly like NumPy's."""
        rank = percent / 100 * (self.inputs - 1)
        cumulative = np.cumsum(self.inputs_by_silent)
        low, high = np.searchsorted(cumulative, [np.floor(rank), np.ceil(rank)], side="right")
        return float(low + (high - low) * (rank - np.floor(rank))) / self.units

    def figures(self) -> dict[str, float]:
        """The layer's figures by name: the rows of `bnhead.census.figures` whose input was counted.

        All are NaN if the count is `unknown`.
        """
        rows = [row for row in OF_COUNTS if row.is_counted(self)]
        if self.unknown:
            return dict.fromkeys((row.name for row in rows), float("nan"))
        return {row.name: float(row.formula(self)) for row in rows}

    def __repr__(self) -> str:
        state = self.unknown and f"unknown, {self.unknown}"
        dead = int(self.dead.sum())
        return (
            f"<Counts: {counted(self.units, 'unit')} on {counted(self.inputs, 'input')}, "
            f"{state or f'{dead} dead ({dead / self.units:.1%})'}>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; omits attributes that are None."""
        plain = {}
        for key, name in _FILE_KEYS.items():
            value = getattr(self, name)
            if isinstance(value, Moments | Accumulation):
                value = value.to_dict()
            elif isinstance(value, np.ndarray):
                value = value.tolist()
            if value is not None:
                plain[key] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Counts":
        """Inverse of `to_dict`."""
        if unexpected := sorted(set(plain) - set(_FILE_KEYS)):
            raise UsageError(f"counts have no {unexpected[0]!r}")
        values = {_FILE_KEYS[key]: value for key, value in plain.items()}
        for name in (_SUMS | _FLOATS | {"causes"}) & values.keys():
            values[name] = np.array(values[name], np.float64 if name in _FLOATS else np.int64)
        for name in values.keys() & _MERGED:
            values[name] = _MERGED[name].from_dict(values[name])
        if "groups" in values:
            values["groups"] = tuple(values["groups"])
        return cls(**values)


_SUMS = {
    *("inputs_by_silent", "active", "active_everywhere", "class_inputs", "class_active", "together"),
    *("runs", "magnitude", "gradient", "output_gradient"),
}
_FLOATS = {"runs", "magnitude", "gradient", "output_gradient", "ablated_loss", "ablated_metric"}
_MERGED = {"moments": Moments, "comoments": Moments, "accumulation": Accumulation}
_MASKS = ("dead", "rarely_active", "always_on", "constant", "gradient_dead", "cloned")
_FILE_KEYS = {  # key in files -> attribute
    "saturated" if spec.name == "active_everywhere" else spec.name: spec.name for spec in fields(Counts)
}


def _over_mean(sums: np.ndarray | None) -> np.ndarray | None:
    """Each unit's sum over the mean of the layer's; zeros if all are 0, None of None."""
    if sums is None:
        return None
    mean = sums.mean()
    return sums / mean if mean > 0 else np.zeros(len(sums))


def run_statistics(runs: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Number of inputs with a defined Wald-Wolfowitz z of the number of runs, and the sum of z over them.

    With k of D units silent, an exchangeable order has mean 1 + 2 k (D - k) / D runs; z is negative if silent
    units are closer together than that. z is undefined if all units or none are silent. Mean and variance
    depend on k only, so sums by k suffice.

    Args:
        runs: `(D + 1,)`; entry k is the number of runs of silent and of active units, summed over the inputs
            with k silent units.
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
