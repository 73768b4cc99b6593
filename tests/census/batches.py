"""Counts of one batch from its small arrays, as the NumPy oracle of the tests."""

import numpy as np

from bnhead.census.counts import Counts, run_statistics


def counts_of_batch(silent, active, active_everywhere, transitions=None, **optional):
    """`Counts` of one batch.

    Args:
        silent: `(batch,)` integers, number of silent units per input.
        active: `(units,)`, number of inputs on which each unit was active somewhere.
        active_everywhere: `(units,)`, number of inputs on which it was active everywhere.
        transitions: `(batch,)` integers, number of neighbours u, u + 1 of which exactly one is silent. None
            counts no runs.
        optional: further attributes.
    """
    size = len(active) + 1
    inputs = np.bincount(silent, minlength=size).astype(np.int64)
    counts = Counts(inputs, np.asarray(active, np.int64), np.asarray(active_everywhere, np.int64), **optional)
    if transitions is not None:
        counts.runs = run_statistics(np.bincount(silent, np.asarray(transitions) + 1, size), inputs)
    return counts
