"""Counts of batches from small arrays, as the NumPy oracle of the tests."""

import functools

import numpy as np

from bnhead.census.counts import Counts, Moments, run_statistics

CLASSES = 3


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


def of_inputs(activations, finite, labels, first):
    """Counts of one batch of `(inputs, positions, units)` activations, with all that can be counted."""
    loud = activations != 0
    somewhere, everywhere, silent = loud.any(1), loud.all(1), ~loud.any(1)
    one_hot = np.eye(CLASSES, dtype=int)[labels]
    values = activations.reshape(-1, activations.shape[-1])
    centred = values - values.mean(0)
    bad = np.flatnonzero(~finite)
    return counts_of_batch(
        silent.sum(1),
        somewhere.sum(0),
        everywhere.sum(0),
        (silent[:, 1:] != silent[:, :-1]).sum(1),
        first=first,
        magnitude=np.abs(activations).mean(1).sum(0),
        moments=Moments(len(values), values.mean(0), (centred**2).sum(0)),
        comoments=Moments(len(values), values.mean(0), centred.T @ centred),
        class_inputs=one_hot.sum(0),
        class_active=one_hot.T @ somewhere,
        gradient=np.abs(activations).sum((0, 1)),
        output_gradient=np.ceil(np.abs(activations)).sum((0, 1)),
        together=somewhere.astype(int).T @ somewhere,
        causes=np.arange(activations.shape[-1]) % 3,
        groups=(2, activations.shape[-1] - 2) if activations.shape[-1] > 2 else (),
        nonfinite=len(bad),
        first_nonfinite=first + int(bad[0]) if len(bad) else None,
        nonfinite_at=f"layer{first + int(bad[0])}" if len(bad) else "",
    )


def parts(activations, finite=None, sizes=None):
    """The counts of batches of the given sizes."""
    finite = np.ones(len(activations), bool) if finite is None else finite
    labels = np.arange(len(activations)) % CLASSES
    stops = np.cumsum(sizes or [len(activations)])
    return [
        of_inputs(*(array[start:stop] for array in (activations, finite, labels)), int(start))
        for start, stop in zip([0, *stops[:-1]], stops, strict=True)
    ]


def added(activations, finite=None, sizes=None):
    """Those counts merged, from the first to the last."""
    return functools.reduce(
        Counts.merge, parts(activations, finite, sizes), Counts.empty(activations.shape[-1])
    )


def random_activations(seed, inputs=40, positions=3, units=7):
    rng = np.random.default_rng(seed)
    activations = rng.normal(size=(inputs, positions, units)) * (rng.random((inputs, positions, units)) < 0.4)
    activations[..., 0] = 0  # dead
    activations[..., 1] = 1  # always on
    return activations
