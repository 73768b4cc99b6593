"""Why a unit is dead: units that cannot fire, found from the weights.

A unit is *certified* if its output is 0 for every input: over all values that the layer's inputs can have,
the upper bound of its pre-activation is at most 0 (`bnhead.census.intervals`). The values are bounded after
an activation (at least 0 after a ReLU, in [0, 6] after ReLU6), also through poolings, concatenations and
batch norms in evaluation mode. A certified unit is *weight-dead* if the norm of its incoming weights, times
the scale of a following batch norm, is at most 1e-3 of the median of the layer's norms above 0, else
*bias-dead*.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import totals
from bnhead.census.counts import BIAS_DEAD, WEIGHT_DEAD
from bnhead.census.intervals import Bounded, bounds_of
from bnhead.census.layer_rules import IN_EVALUATION, Mode
from bnhead.census.sites import Site, inventory_of
from bnhead.errors import UsageError
from bnhead.graph import flat_inputs, functional, taps, trace
from bnhead.graph.inputs import batches, check_data
from bnhead.texts import counted, first_line

WEIGHTLESS = 1e-3  # largest norm of a weight-dead unit's weights, relative to the median of the layer


@dataclass(frozen=True, eq=False)
class Certificate:
    """The certified units of one layer.

    Attributes:
        upper: `(units,)` float64, upper bound of the unit's pre-activation with the backend's rounding, or of
            its output if the layer has no activation; infinite if there is none.
        certified: `(units,)` bool, units whose output is 0 for every input that the certificate covers.
        weight_dead: `(units,)` bool, those of them with almost no incoming weights.
        covers: the inputs that it covers, in words.
    """

    upper: np.ndarray
    certified: np.ndarray
    weight_dead: np.ndarray
    covers: str = "any input"

    @property
    def bias_dead(self) -> np.ndarray:
        """`(units,)` bool, the certified units that have weights."""
        return self.certified & ~self.weight_dead

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.certified)

    @property
    def causes(self) -> np.ndarray:
        """`(units,)` int64, the attribute `causes` of `Counts`."""
        return np.where(self.weight_dead, WEIGHT_DEAD, np.where(self.certified, BIAS_DEAD, 0)).astype(
            np.int64
        )

    def __repr__(self) -> str:
        return (
            f"<Certificate: {int(self.certified.sum())} of {counted(self.units, 'unit')} cannot fire "
            f"({int(self.weight_dead.sum())} weight-dead, {int(self.bias_dead.sum())} bias-dead); "
            f"covers {self.covers}>"
        )


def certify(
    model: keras.Model,
    layers: Sequence[Any] | str | None = None,
    *,
    data: Any = None,
    batch_size: int = 256,
    training_batch: int | None = None,
) -> dict[str, Certificate]:
    """Certifies units that cannot fire, from the weights of a functional or Sequential model.

    Without `data` a certificate covers any input. With `data` it covers inputs for which every layer's
    inputs stay in the range that they have on `data`. Such a certificate is labelled, and proves nothing
    about other inputs.

    Args:
        model: a built functional or Sequential model, which may hold others; it is not changed.
        layers: as for `count`.
        data: inputs, as for `count`, to observe the ranges of the layers' inputs on; None for no data.
        batch_size: inputs per batch, if `data` is arrays.
        training_batch: number of examples of a training batch, to certify for training mode, in which a batch
            norm's |z| <= sqrt(n - 1) for the n values of a channel. None for evaluation mode.

    Returns:
        Name of the layer -> its `Certificate`, for the selected layers with a rule in
        `bnhead.census.intervals`; a layer inside a subclassed model or layer has none.

    Raises:
        UsageError: a model that is not built, a layer that the model does not have, data that do not fit, or
            `data` with `training_batch`.
    """
    if training_batch is not None and (data is not None or training_batch < 1):
        wrong = "needs no data" if data is not None else f"must be at least 1, got {training_batch}"
        raise UsageError(f"training_batch {wrong}")
    if data is None:
        sites = inventory_of(model).select(layers)
        covers = (
            "any input"
            if training_batch is None
            else f"any input, in training by batches of {training_batch}"
        )
        return certificates_of(model, sites, Mode(training_batch), covers)
    check_data(data, batch_size)
    observed, inputs = _observe(model, data, batch_size)
    sites = inventory_of(model).select(layers)
    covers = f"inputs within the ranges observed on {counted(inputs, 'input')}"
    return certificates_of(model, sites, Mode(observed=observed), covers)


def certificates_of(
    model: keras.Model, sites: Sequence[Site], mode: Mode = IN_EVALUATION, covers: str = "any input"
) -> dict[str, Certificate]:
    """The certificates of sites that have known bounds, by name."""
    bounds = bounds_of(model, {site.key[0] for site in sites if site.is_layer_output}, mode)
    certificates = {}
    for site in sites:
        bounded = bounds.get(site.key[0])
        if bounded is not None and site.is_layer_output and site.units:
            certificates[site.name] = _certificate(bounded, site.units, covers)
    return certificates


def _certificate(bounded: Bounded, units: int, covers: str) -> Certificate:
    low, high = bounded.after.along(bounded.axis, units)
    certified = (low == 0) & (high == 0)  # False for NaN
    weight_dead = np.zeros(units, bool)
    if bounded.after.norms is not None:
        axes = tuple(
            i for i in range(bounded.after.norms.ndim) if i != bounded.axis % bounded.after.norms.ndim
        )
        norms = np.broadcast_to(bounded.after.norms.max(axes), (units,))
        median = np.median(norms[norms > 0]) if (norms > 0).any() else 0.0
        weight_dead = certified & (norms <= WEIGHTLESS * median)
    return Certificate(bounded.before.along(bounded.axis, units)[1], certified, weight_dead, covers)


def _observe(model: keras.Model, data: Any, batch_size: int) -> tuple[dict[str | int, Any], int]:
    """`Mode.observed`, and the number of inputs.

    Raises:
        UsageError: a model that is not functional, or data that do not fit it.
    """
    graph = functional(model)
    if graph is None:
        raise UsageError(f"model {model.name!r} must be functional or Sequential to certify units on data")

    def ranges(x):
        with taps.opened(model, evaluating=True) as opened:
            model(x, training=False)
        run = opened.passes[0]
        tensors = [(str(i), tensor, -1) for i, tensor in enumerate(run.inputs) if tensor is not None]
        tensors += [(f"/{tap.path}/{tap.number}", tap.output, tap.axis) for tap in run.outputs]
        return {key: _extreme_values(tensor, axis) for key, tensor, axis in tensors if len(tensor.shape) > 1}

    run, total, inputs = trace.compiled(ranges, model), {}, 0
    for x, _ in batches(data, batch_size):
        try:
            x = keras.tree.pack_sequence_as(graph._inputs_struct, flat_inputs(model, x))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"data does not fit the model: {first_line(error)}") from error
        inputs += next(len(leaf) for leaf in keras.tree.flatten(x) if leaf is not None)
        for key, extremes in totals.to_host(run(x)).items():
            path = key[1:].rpartition("/")[0] if key.startswith("/") else int(key)  # all calls of a layer
            total.setdefault(path, []).append(extremes)
    lows_highs = {path: zip(*ranges, strict=True) for path, ranges in total.items()}
    return {
        path: (np.minimum.reduce(list(lows))[0], np.maximum.reduce(list(highs))[0])
        for path, (lows, highs) in lows_highs.items()
    }, inputs


def _extreme_values(tensor: Any, axis: int | None) -> tuple[Any, Any]:
    """Least and greatest value of each unit, in as many axes as the tensor has."""
    rank = len(tensor.shape)
    axes = tuple(i for i in range(rank) if axis is None or i != axis % rank)
    tensor = ops.cast(tensor, "float32") if tensor.dtype != "float64" else tensor
    return ops.min(tensor, axes, keepdims=True), ops.max(tensor, axes, keepdims=True)
