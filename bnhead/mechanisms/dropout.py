"""The variance shift of dropout: in training a norm after it sees another variance than in evaluation."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead import graph, seeds
from bnhead.census import feed, totals
from bnhead.graph import agreement, trace
from bnhead.graph.calls import model_calls
from bnhead.graph.inputs import batches, check_data
from bnhead.layers import ClassConditionalDropout
from bnhead.layers.moments import PooledMoments, moments


@dataclass(eq=False)
class VarianceShift:
    """The variance of a norm's input with dropout and without.

    Attributes:
        dropping: `(channels,)` float64, the variance while dropout drops, as in training.
        whole: `(channels,)` float64, the variance without, as in evaluation.
    """

    dropping: np.ndarray
    whole: np.ndarray

    @property
    def shift(self) -> np.ndarray:
        """`(channels,)`, max(dropping / whole, whole / dropping): 1 without a shift; NaN if both are 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.dropping / self.whole
            return np.maximum(ratio, 1 / ratio)

    @property
    def median(self) -> float:
        """Median of `shift` over the channels that vary."""
        finite = self.shift[np.isfinite(self.shift)]
        return float(np.median(finite)) if len(finite) else np.nan


def norms_after_dropout(model: keras.Model) -> list[str]:
    """Names, in the flat model, of the batch norms whose input depends on dropout."""
    dropped: set[int] = set()
    names = []
    for call in model_calls(graph.flattened(model).model):
        if _drops(call.operation) or any(id(tensor) in dropped for tensor in call.inputs):
            dropped |= set(map(id, call.outputs))
        if hasattr(call.operation, "moving_variance") and id(call.inputs[0]) in dropped:
            names.append(call.operation.name)
    return names


def variance_shift(
    model: keras.Model, data: Any, *, batch_size: int = 256, seed: int = 0
) -> dict[str, VarianceShift]:
    """The variance shift at every batch norm after dropout.

    The model runs twice in evaluation mode, once with dropout that drops. With a keep probability p and
    inputs of mean m and variance v the variance becomes (v + m^2) / p - m^2, so the shift is 1 / p where
    m = 0. The model and the states of its seed generators are not changed.

    Args:
        model: a functional model.
        data: inputs, as for `census.count`; a few hundred are enough.
        batch_size: inputs per batch if `data` is arrays.
        seed: of the dropped units.

    Returns:
        Name of the norm -> its shift; empty without dropout before a norm.

    Reference: Li et al. 2019, arXiv 1801.05134, equation 5.
    """
    check_data(data, batch_size)
    names = norms_after_dropout(model)
    if not names:
        return {}
    net = graph.flattened(model).model
    nets = [_inputs_of_norms(net, names, drops=drops) for drops in (True, False)]
    generators = {id(g): g for layer in net._flatten_layers() for g in layer._seed_generators}.values()
    states = [generator.state for generator in generators]

    def run(x, new_states):
        for state, value in zip(states, new_states, strict=True):
            state.assign(value)  # only in the scope of the compiled pass
        results = [part(x) for part in nets]  # `training` would override that of the calls
        return [{name: moments(tensor) for name, tensor in result.items()} for result in results]

    compiled = trace.compiled(run, model)
    pooled = [{name: PooledMoments() for name in names} for _ in nets]
    for number, (x, _) in enumerate(batches(data, feed.batch_size_of(net, batch_size))):
        x = agreement.select_inputs(net, nets[0], feed.arranged(net, x))
        numbers = (seeds.stream(seed, "dropout", number, i) for i in range(len(states)))
        keys = [
            ops.convert_to_tensor(np.array([n, 0]), s.dtype) for n, s in zip(numbers, states, strict=True)
        ]
        rows = next(len(leaf) for leaf in keras.tree.flatten(x) if leaf is not None)
        for sums, of_batch in zip(pooled, totals.to_host(compiled(x, keys)), strict=True):
            for name, (mean, variance) in of_batch.items():
                sums[name].add(mean, variance, rows)
    dropping, whole = ({name: s.squares / max(s.count, 1) for name, s in sums.items()} for sums in pooled)
    return {name: VarianceShift(dropping[name], whole[name]) for name in names}


def _drops(operation: keras.Operation) -> bool:
    """Whether a layer is random in training and the identity in inference, as dropout is."""
    return isinstance(operation, ClassConditionalDropout) or (
        isinstance(operation, keras.Layer) and "dropout" in type(operation).__name__.lower()
    )


def _inputs_of_norms(net: keras.Model, names: list[str], *, drops: bool) -> keras.Model:
    """A model that shares the layers of `net` and returns the input of each norm, its channels last."""
    read: dict[str, Any] = {}

    def perform(operation, *arguments, **keywords):
        if operation.name in names:
            axis = getattr(operation, "axis", -1)
            axis = axis[0] if isinstance(axis, list | tuple) else axis
            read[operation.name] = ops.moveaxis(arguments[0], axis, -1)
        if _drops(operation):
            keywords = {**keywords, "training": drops}
        return operation(*arguments, **keywords)

    inputs = graph.new_inputs(net)
    graph.replay(net, inputs, perform)
    return keras.Model(graph.used_inputs(net, inputs, read), read)
