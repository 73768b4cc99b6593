"""Which units are silent together: the order-free question beside contiguity. NumPy and SciPy."""

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform


def phi_matrix(together: np.ndarray, active: np.ndarray, inputs: int) -> np.ndarray:
    """Phi coefficients of all pairs of units: Pearson's correlation of "silent on the input".

    Args:
        together: `(units, units)`, inputs on which both units were active.
        active: `(units,)`, inputs on which each was.
        inputs: number of inputs.

    Returns:
        `(units, units)` float64 in [-1, 1]; NaN in the rows and columns of units that never change, the dead
        and those that are active on every input.
    """
    active = np.asarray(active, np.float64)
    covariance = np.asarray(together, np.float64) * inputs - np.outer(active, active)
    spread = np.sqrt(active * (inputs - active))
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = covariance / np.outer(spread, spread)
    changing = spread > 0
    return np.where(np.outer(changing, changing), np.clip(phi, -1, 1), np.nan)


def effective_patterns(phi: np.ndarray) -> float:
    """Effective number of independent patterns among the units that change: the participation ratio.

    With eigenvalues l of the m changing units' phi matrix it is (sum l)^2 / sum l^2 = m^2 / sum phi^2: m when
    all are uncorrelated, 1 when they fall silent as one. N inputs alone make |phi| about 1/sqrt(N), so it is
    at most about N; 0 when no unit changes.

    Reference: Gao et al. 2017, "A theory of multineuronal dimensionality".
    """
    changing = ~np.isnan(np.diagonal(phi))
    kept = phi[np.ix_(changing, changing)]
    return float(len(kept) ** 2 / np.sum(kept * kept)) if len(kept) else 0.0


def sorted_order(phi: np.ndarray) -> np.ndarray:
    """Order of the units in which those that are silent together stand side by side, for pictures.

    Leaves of an average-linkage tree on the distance 1 - phi; units that never change come last.

    Returns:
        `(units,)` int, a permutation.
    """
    changing = np.flatnonzero(~np.isnan(np.diagonal(phi)))
    others = np.flatnonzero(np.isnan(np.diagonal(phi)))
    if len(changing) > 2:
        distance = 1 - phi[np.ix_(changing, changing)]
        distance = (distance + distance.T) / 2
        np.fill_diagonal(distance, 0)
        tree = hierarchy.linkage(squareform(np.maximum(distance, 0), checks=False), "average")
        changing = changing[hierarchy.leaves_list(tree)]
    return np.concatenate([changing, others])
