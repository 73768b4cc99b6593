"""Clones: units of a layer whose outputs rise and fall together on every input. NumPy and SciPy only."""

import numpy as np
from scipy.sparse import csgraph, csr_array

CLONES = 0.99  # smallest correlation of two clones


def correlations(products: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the outputs of all pairs of units.

    Args:
        products: `(units, units)`, sums over the values of (a_i - mean a_i)(a_j - mean a_j).
        constant: `(units,)` bool, units that do not vary.

    Returns:
        `(units, units)` float64 in [-1, 1]; NaN in the rows and columns of constant units.
    """
    deviation = np.sqrt(np.diagonal(products))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.clip(products / np.outer(deviation, deviation), -1, 1)
    return np.where(np.logical_or.outer(constant, constant), np.nan, correlation)


def pairs_of(correlation: np.ndarray, least: float) -> np.ndarray:
    """The pairs of units that correlate by at least `least`.

    Args:
        correlation: as returned by `correlations`.
        least: smallest correlation.

    Returns:
        `(pairs, 2)` int64, the smaller index first, in order; NaN makes no pair.
    """
    first, second = np.nonzero(np.triu(correlation >= least, k=1))
    return np.stack([first, second], axis=1)


def groups_of(pairs: np.ndarray, units: int) -> list[np.ndarray]:
    """The groups that the pairs join: two units are in a group if a chain of pairs connects them.

    Args:
        pairs: `(pairs, 2)` indices.
        units: number of units.

    Returns:
        Sorted indices of each group of two or more, in the order of their first units.
    """
    graph = csr_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(units, units))
    number, labels = csgraph.connected_components(graph, directed=False)
    groups = [np.flatnonzero(labels == label) for label in range(number)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: group[0])
