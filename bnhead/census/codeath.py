"""Co-death: which units are silent on the same inputs, whatever their order. NumPy and SciPy only."""

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform


def phi_matrix(coactive: np.ndarray, active: np.ndarray, inputs: int) -> np.ndarray:
    """Phi coefficients of all pairs of units: Pearson's correlation of "silent on the input".

    Args:
        coactive: `(units, units)`, inputs on which both units were active.
        active: `(units,)`, inputs on which each unit was active.
        inputs: number of inputs.

    Returns:
        `(units, units)` float64 in [-1, 1]; NaN in the rows and columns of units that never change: those
        that are silent on every input or active on every input.
    """
    active = np.asarray(active, np.float64)
    covariance = np.asarray(coactive, np.float64) * inputs - np.outer(active, active)
    spread = np.sqrt(active * (inputs - active))
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = covariance / np.outer(spread, spread)
    changing = spread > 0
    return np.where(np.outer(changing, changing), np.clip(phi, -1, 1), np.nan)


def effective_patterns(phi: np.ndarray) -> float:
    """Effective number of independent patterns among the units that change: the participation ratio.

    With the eigenvalues l of the phi matrix of the m changing units it is
    (sum l)^2 / sum l^2 = m^2 / sum phi^2: m if all are uncorrelated, 1 if all fall silent together, 0 if no
    unit changes. N independent inputs give |phi| of about 1/sqrt(N), so the number is at most about N.

    Reference: Gao et al. 2017, "A theory of multineuronal dimensionality".
    """
    changing = ~np.isnan(np.diagonal(phi))
    phi = phi[np.ix_(changing, changing)]
    return float(len(phi) ** 2 / np.sum(phi * phi)) if len(phi) else 0.0


def sorted_order(phi: np.ndarray) -> np.ndarray:
    """Order of the units for plots, in which units that are silent together are adjacent.

    Leaves of an average-linkage tree on the distance 1 - phi; units that never change come last.

    Returns:
        `(units,)` int, a permutation.
    """
    undefined = np.isnan(np.diagonal(phi))
    changing = np.flatnonzero(~undefined)
    if len(changing) > 2:
        distance = 1 - phi[np.ix_(changing, changing)]
        # squareform needs exact symmetry and a zero diagonal, which rounding breaks
        distance = (distance + distance.T) / 2
        np.fill_diagonal(distance, 0)
        tree = hierarchy.linkage(squareform(np.maximum(distance, 0), checks=False), "average")
        changing = changing[hierarchy.leaves_list(tree)]
    return np.concatenate([changing, np.flatnonzero(undefined)])
