"""The counts of one layer's silent units, and the figures they give: NumPy only.

Let `a[n, p, u]` be a layer's output after the activation for input n, position p (one position for a fully
connected layer, height x width of them for a feature map) and unit u. Unit u is *silent* on input n when
max over p of |a[n, p, u]| <= eps, with eps = 0 for ReLU. Everything below follows from three counts that are
kept while the inputs stream by, in memory that grows with the units and not with the inputs.
"""

from dataclasses import dataclass, field

import numpy as np

RARE = 0.01  # "rarely active": on fewer than 1 % of the inputs, Dohare et al. 2024, "Loss of plasticity"


@dataclass(eq=False)
class Counts:
    """Running counts of one layer.

    Attributes:
        inputs_by_silent: `(units + 1,)` int64; entry k is the number of inputs on which exactly k units were
            silent. A histogram, so that percentiles over the inputs are exact without keeping the inputs.
        active: `(units,)` int64, the inputs on which the unit was active at some position.
        saturated: `(units,)` int64, the inputs on which it was active at every position.
        nonfinite: inputs for which the model or the layer received NaN or infinity, or the layer returned it.
        first_nonfinite: index of the first such input in the order they were counted; None without one.
        finite_weights: whether the model's weights were all finite.
    """

    inputs_by_silent: np.ndarray
    active: np.ndarray
    saturated: np.ndarray
    nonfinite: int = 0
    first_nonfinite: int | None = None
    finite_weights: bool = True

    @classmethod
    def empty(cls, units: int) -> "Counts":
        """Counts of no inputs at all."""
        return cls(np.zeros(units + 1, np.int64), np.zeros(units, np.int64), np.zeros(units, np.int64))

    def add(self, silent: np.ndarray, active: np.ndarray, saturated: np.ndarray, finite: np.ndarray) -> None:
        """Adds one batch.

        Args:
            silent: `(batch,)`, number of silent units per input.
            active: `(units,)`, number of inputs of the batch on which each unit was active somewhere.
            saturated: `(units,)`, number of inputs on which it was active everywhere.
            finite: `(batch,)` bool, whether all of the layer's values were finite for the input.
        """
        if self.first_nonfinite is None and not finite.all():
            self.first_nonfinite = self.inputs + int(np.argmin(finite))
        self.nonfinite += int(np.sum(~finite))
        self.inputs_by_silent += np.bincount(silent, minlength=self.units + 1)
        self.active += active
        self.saturated += saturated

    def merge(self, later: "Counts") -> "Counts":
        """Counts of this object's inputs followed by `later`'s, as if they had been counted in one go."""
        first = self.first_nonfinite
        if first is None and later.first_nonfinite is not None:
            first = self.inputs + later.first_nonfinite
        return Counts(
            self.inputs_by_silent + later.inputs_by_silent,
            self.active + later.active,
            self.saturated + later.saturated,
            self.nonfinite + later.nonfinite,
            first,
            self.finite_weights and later.finite_weights,
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
        return min(1.0, 3 / self.inputs) if self.inputs else 1.0

    @property
    def unknown(self) -> str:
        """Why nothing can be said about this layer; empty when something can.

        NaN is never dead: TensorFlow's fused CPU kernels turn it into 0, which looks like silence, so a value
        that is not finite in the model's input or weights or at the layer voids the count.
        """
        if not self.inputs:
            return "no inputs were counted"
        if not self.finite_weights:
            return "the model's weights are not finite"
        if self.nonfinite:
            return f"values are not finite on {self.nonfinite} inputs, first on input {self.first_nonfinite}"
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

    def silent_share(self, percent: float) -> float:
        """Percentile over the inputs of the share of silent units, interpolated linearly as by NumPy."""
        rank = percent / 100 * (self.inputs - 1)
        cumulative = np.cumsum(self.inputs_by_silent)
        below, above = np.searchsorted(cumulative, [np.floor(rank), np.ceil(rank)], side="right")
        return float(below + (above - below) * (rank - np.floor(rank))) / self.units

    def figures(self) -> dict[str, float]:
        """The layer's figures, shares in [0, 1]; all NaN when the count is `unknown`.

        `per_input`: mean over the inputs of the share of silent units, `per_input_p05`, `_p50` and `_p95`
        its percentiles; `dataset`: share of units dead on all inputs; `rarely_active`; `always_on`.
        """
        if self.unknown:
            return dict.fromkeys(FIGURES, float("nan"))
        mean = np.arange(self.units + 1) @ self.inputs_by_silent / (self.inputs * self.units)
        values = (
            mean,
            *(self.silent_share(p) for p in (5, 50, 95)),
            self.dead.mean(),
            self.rarely_active.mean(),
            self.always_on.mean(),
        )
        return dict(zip(FIGURES, map(float, values), strict=True))


FIGURES = (
    "per_input",
    "per_input_p05",
    "per_input_p50",
    "per_input_p95",
    "dataset",
    "rarely_active",
    "always_on",
)


@dataclass
class Census:
    """The counts of several layers on the same inputs.

    Attributes:
        layers: name of the layer -> its counts.
    """

    layers: dict[str, Counts] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Every layer's figures under `dead/<layer>/<figure>`, the names in `logs` and in TensorBoard."""
        return {
            f"dead/{name}/{figure}": value
            for name, counts in self.layers.items()
            for figure, value in counts.figures().items()
        }

    def __str__(self) -> str:
        return "\n".join(_lines(name, counts) for name, counts in self.layers.items())


def _lines(name: str, counts: Counts) -> str:
    if counts.unknown:
        return f"{name}: unknown, {counts.unknown}"
    share = counts.figures()
    return "\n".join(
        [
            f"{name}: {counts.units} units, {counts.inputs} inputs",
            f"  silent per input    {share['per_input']:.1%} of the units on average, "
            f"{share['per_input_p05']:.1%} to {share['per_input_p95']:.1%} on 90 % of the inputs",
            f"  dead on all inputs  {counts.dead.sum()} units, {share['dataset']:.1%} "
            f"(such a unit fires on less than {counts.bound:.2%} of inputs, 95 % confidence)",
            f"  rarely active       {counts.rarely_active.sum()} units, {share['rarely_active']:.1%} "
            f"(on less than {RARE:.0%} of the inputs, the dead ones included)",
            f"  always on           {counts.always_on.sum()} units, {share['always_on']:.1%}",
        ]
    )
