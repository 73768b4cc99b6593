"""Neural collapse, its affine-invariant companion and effective ranks, from moments by class. NumPy only."""

from dataclasses import dataclass

import numpy as np

ENOUGH = 10  # examples per dimension from which the Pillai trace says more about the features than about N


@dataclass(eq=False)
class ClassMoments:
    """Means of each class and the scatter within the classes, merged without cancellation, float64.

    Attributes:
        counts: `(classes,)`, examples of each class.
        means: `(classes, units)`; zeros for a class without examples.
        within: `(units, units)`, sum over examples of the outer product of the distance
            from the class's mean.
    """

    counts: np.ndarray
    means: np.ndarray
    within: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, labels: np.ndarray, classes: int) -> "ClassMoments":
        """The moments of one batch `(examples, units)` with class numbers `(examples,)`."""
        x, one_hot = x.astype("float64"), np.eye(classes)[labels]
        counts = one_hot.sum(0)
        means = one_hot.T @ x / np.maximum(counts, 1)[:, None]
        centred = x - means[labels]
        return cls(counts, means, centred.T @ centred)

    def merge(self, other: "ClassMoments") -> "ClassMoments":
        """The moments of the examples of both (Chan et al. 1979, equation 2.1, for each class)."""
        counts = self.counts + other.counts
        step, total = other.means - self.means, np.maximum(counts, 1)
        between = (step * (self.counts * other.counts / total)[:, None]).T @ step
        means = self.means + step * (other.counts / total)[:, None]
        return ClassMoments(counts, means, self.within + other.within + between)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return int(self.counts.sum())

    @property
    def mean(self) -> np.ndarray:
        """`(units,)`, the mean of all examples."""
        return self.counts @ self.means / self.examples

    @property
    def total(self) -> np.ndarray:
        """`(units, units)`, the scatter of all examples around `mean`."""
        centred = self.means - self.mean
        return self.within + (centred * self.counts[:, None]).T @ centred


@dataclass(frozen=True)
class Collapse:
    """The figures of neural collapse. Classes without examples are left out.

    Attributes:
        nc1: tr(pinv(Sb) Sw) / K; 0 if every class is a point.
        nc1_quotient: tr Sw / tr Sb.
        nc2: distance of the class means from an equiangular tight frame, 0 for one.
        nc3: distance of output weights x class means from it; sqrt(2) on average for random weights.
        pillai: tr(Sb (Sb + Sw)^-1) / (K - 1), in [0, 1]: how much of the features' variance the classes
            explain, unchanged by any affine map of the features; NaN for fewer than 10 examples per unit.
    """

    nc1: float
    nc1_quotient: float
    nc2: float
    nc3: float
    pillai: float


def neural_collapse(moments: ClassMoments, weights: np.ndarray | None = None) -> Collapse:
    """NC1, NC2 and NC3, and the Pillai trace.

    With the K class means m_c, their mean m, M the matrix of rows m_c - m: Sb = M' M / K, Sw the mean outer
    product of the examples' distances from their class mean, G = M M' for NC2 and W M' for NC3, and
    NC2 = || G / ||G|| - (I - 1 1' / K) / sqrt(K - 1) ||. Classes have equal weights in Sb, examples in Sw,
    as in Papyan et al. for balanced classes; in the Pillai trace examples have equal weights in both.

    NC1, NC2 and NC3 change under an affine map of the features, so before and after a batch norm, and with
    and without one, they cannot be compared; the Pillai trace can.

    Args:
        moments: of the inputs of the output layer.
        weights: `(units, classes)`, its kernel; None leaves NC3 undefined.

    Reference: Papyan, Han & Donoho 2020, arXiv 2008.08186; Kothapalli 2023, arXiv 2206.04041, section 3;
    Pillai 1955.
    """
    present = moments.counts > 0
    means, number = moments.means[present], int(present.sum())
    if number < 2:
        return Collapse(*(np.nan,) * 5)
    centred, within = means - means.mean(0), moments.within / moments.examples
    # pinv(M' M / K) from M itself: the squares of tiny singular values would be lost
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    nonzero = singular > singular[0] * max(centred.shape) * np.finfo("float64").eps
    inside = np.einsum("ku,uv,kv->k", directions[nonzero], within, directions[nonzero])
    spread = float((centred**2).sum() / number)
    nc3 = np.nan if weights is None else _structure(np.asarray(weights, "float64").T[present] @ centred.T)
    return Collapse(
        float((inside * number / singular[nonzero] ** 2).sum() / number) if spread else np.inf,
        float(np.trace(within) / spread) if spread else np.inf,
        _structure(centred @ centred.T),
        nc3,
        pillai(moments),
    )


def pillai(moments: ClassMoments) -> float:
    """The Pillai trace, divided by K - 1; NaN for fewer than `ENOUGH` examples per unit.

    Pure noise has K - 1 spurious directions: with N examples and D units the trace is about D / N.
    """
    number, units = int((moments.counts > 0).sum()), moments.means.shape[1]
    if moments.examples < ENOUGH * units or number < 2:
        return np.nan
    total = moments.total
    values, vectors = np.linalg.eigh(total)
    nonzero = values > values[-1] * units * np.finfo("float64").eps  # constant units and repeated ones
    whitened = vectors[:, nonzero] / np.sqrt(values[nonzero])
    centred = (moments.means - moments.mean) * np.sqrt(moments.counts)[:, None]
    return float(((centred @ whitened) ** 2).sum() / (number - 1))


def _structure(products: np.ndarray) -> float:
    """|| G / ||G|| - (I - 1 1' / K) / sqrt(K - 1) ||, Frobenius norms."""
    number = len(products)
    frame = (np.eye(number) - 1 / number) / np.sqrt(number - 1)
    norm = np.linalg.norm(products)
    return float(np.linalg.norm(products / norm - frame)) if norm else np.nan


def effective_rank(moments: ClassMoments, *, centred: bool) -> float:
    """exp(entropy) of the normalised singular values of the matrix of examples, between 1 and the units.

    Args:
        moments: of the features.
        centred: whether the mean is subtracted first (Roy & Vetterli 2007). Without (RankMe, Garrido et al.
            2023, arXiv 2210.02885) the mean counts as a direction, and far from 0 outweighs all others.

    Returns:
        NaN if all features are constant.
    """
    scatter = moments.total
    if not centred:
        scatter = scatter + moments.examples * np.outer(moments.mean, moments.mean)
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(scatter), 0))
    if not singular.sum() > 0:
        return np.nan
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
