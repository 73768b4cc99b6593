"""The layers of several heads at once: a batched product per linear layer, statistics of shared inputs once.

The heads read the same batch and have the same layers, which may differ in width: a narrower layer is padded
with units whose weights are all 0 and stay so. Dense layers, batch norms and their parts, activations and
layers without weights are computed for all heads together. Every other layer is called head by head, at the
head's width and with its random state, so that its numbers are those of Keras.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead import layers as ours
from bnhead.layers.moments import moving_average

Tensor = Any
Values = dict[str, Tensor]  # name of a variable -> its values in all heads, `(heads, ...)`, padded
_NORMS = (
    keras.layers.BatchNormalization,
    ours.BatchNormalization,
    ours.FrozenBatchNormalization,
    ours.BatchCentering,
    ours.BatchScaling,
)
# Padding needs no mask after these.
_ZERO_AT_ZERO = [
    getattr(keras.activations, name)
    for name in ("linear", "relu", "relu6", "elu", "selu", "gelu", "silu", "mish", "tanh", "leaky_relu")
]
ELEMENTWISE = (*_ZERO_AT_ZERO, keras.activations.sigmoid, keras.activations.softplus)


class Batch:
    """One batch that several heads read.

    Args:
        x: `(batch, ...)`, at least float32.
        y: labels or targets, `(batch, ...)`.

    Attributes:
        x, y: as given.
    """

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y
        self._moments = _moments(x)  # before any gradient is taken, so that they are part of none

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a tensor that the heads share; those of the batch are computed once."""
        return self._moments if values is self.x else _moments(values)


@dataclass(frozen=True)
class Activations:
    """The values between two layers of all heads: `gain * values + offset`.

    A batch norm of the batch changes no value, but `gain` and `offset`, which the next Dense takes into its
    kernel: gamma and beta cost one product with the kernel instead of two passes over the batch per head, and
    the gradient of gamma needs no product with the transposed kernel.

    Attributes:
        values: `(batch, ...)`, the same for all heads, or `(heads, batch, ...)`.
        shared: whether they are the same for all heads.
        widths: of each head; further units are padding.
        gain, offset: `(heads, channels)`; None is 1 and 0.
    """

    values: Tensor
    shared: bool
    widths: tuple[int, ...]
    gain: Tensor = None
    offset: Tensor = None

    @property
    def each(self) -> Tensor:
        """`(heads, batch, ...)`: the values of each head."""
        values = ops.expand_dims(self.values, 0) if self.shared else self.values
        inner = tuple(range(1, len(values.shape) - 1))
        if self.gain is not None:
            values = values * ops.expand_dims(self.gain, inner)
        if self.offset is not None:
            values = values + ops.expand_dims(self.offset, inner)
        if values.shape[0] == 1 < len(self.widths):
            values = ops.broadcast_to(values, (len(self.widths), *values.shape[1:]))
        return values

    def with_values(self, values: Tensor, widths: Sequence[int] | None = None) -> "Activations":
        """Values of each head, of other widths if given."""
        return Activations(values, False, tuple(widths or self.widths))

    def normalised(self, mean: Tensor, inverse: Tensor, gain: Tensor, offset: Tensor) -> "Activations":
        """`gain (x - mean) inverse + offset`; all may be None. Shared moments are `(channels,)`."""
        plain = self.gain is None and self.offset is None
        if self.shared and plain and all(m is None or len(m.shape) == 1 for m in (mean, inverse)):
            values = self.values if mean is None else self.values - mean
            values = values if inverse is None else values * inverse
            return replace(self, values=values, gain=gain, offset=offset)
        # (x - mean) inverse gain + offset, as a single product and sum
        gain = inverse if gain is None else gain if inverse is None else gain * inverse
        if mean is not None:
            shift = mean if gain is None else mean * gain
            offset = -shift if offset is None else offset - shift
        start = self if plain else self.with_values(self.each)
        return replace(start, gain=gain, offset=offset)


def dense(layers: Sequence[keras.layers.Dense], values: Values, x: Activations) -> Activations:
    """A Dense layer with its activation."""
    kernel, bias = values["kernel"], values.get("bias")
    if x.offset is not None:
        constant = ops.squeeze(ops.matmul(ops.expand_dims(x.offset, 1), kernel), 1)
        bias = constant if bias is None else bias + constant
    if x.gain is not None:
        kernel = ops.expand_dims(x.gain, 2) * kernel
    if x.shared and keras.backend.backend() == "jax":  # one product of two matrices
        outputs = ops.einsum("bd,kdu->kbu", x.values, kernel)
    else:  # TensorFlow reads the shared batch for every head without a copy
        outputs = ops.matmul(ops.expand_dims(x.values, 0) if x.shared else x.values, kernel)
    if bias is not None:
        outputs = outputs + ops.expand_dims(bias, 1)
    widths = [layer.units for layer in layers]
    return x.with_values(with_padding_at_zero(layers[0].activation, outputs, widths), widths)


def with_padding_at_zero(function: Callable, inputs: Tensor, widths: Sequence[int]) -> Tensor:
    """A function of one value, applied to all; 0 again in the padding."""
    outputs = function(inputs)
    size = outputs.shape[-1]
    if min(widths) == size or getattr(function, "activation", function) in _ZERO_AT_ZERO:
        return outputs
    mask = np.arange(size) < np.array(widths)[:, None]
    return ops.where(np.expand_dims(mask, tuple(range(1, len(outputs.shape) - 1))), outputs, 0.0)


def batch_norm(
    layers: Sequence[keras.Layer], values: Values, x: Activations, batch: Batch
) -> tuple[Activations, Values]:
    """A batch norm, a frozen one, or its centring or scaling alone, and the new moving averages."""
    layer, updates = layers[0], {}
    averages = values["moving_mean"], values["moving_variance"]
    if layer.trainable and not isinstance(layer, ours.FrozenBatchNormalization):
        if x.shared and x.gain is None and x.offset is None:
            mean, variance = batch.moments(x.values)
        else:
            x = x.with_values(x.each)
            mean, variance = _moments(x.values, first=1)
        for name, value in (("moving_mean", mean), ("moving_variance", variance)):
            updates[name] = moving_average(values[name], value, layer.momentum)
    else:
        mean, variance = averages
    inverse = ops.rsqrt(variance + layer.epsilon)
    if isinstance(layer, ours.BatchCentering):
        inverse = None
    if isinstance(layer, ours.BatchScaling):
        mean = None
    return x.normalised(mean, inverse, values.get("gamma"), values.get("beta")), updates


def head_by_head(
    layers: Sequence[keras.Layer], values: Values, x: Activations, batch: Batch
) -> tuple[Activations, Values]:
    """Any layer, called for each head at its width; on JAX in one vectorised call if the widths are equal."""
    names = named_variables(layers[0])
    trained = [name for name, v in names.items() if any(v is t for t in layers[0].trainable_variables)]
    untrained = [name for name in names if name not in trained]
    reads_labels = isinstance(layers[0], ours.ClassConditionalDropout)

    def call(layer, inputs, trained_values, fixed_values):
        arguments = (inputs, batch.y) if reads_labels else (inputs,)
        keywords = {"training": True} if layer._call_has_training_arg else {}
        return layer.stateless_call(trained_values, fixed_values, *arguments, **keywords)

    inputs = x.each
    if keras.backend.backend() == "jax" and len(set(x.widths)) == 1:
        import jax

        outputs, updated = jax.vmap(lambda *arguments: call(layers[0], *arguments))(
            inputs, [values[name] for name in trained], [values[name] for name in untrained]
        )
        return x.with_values(outputs, [outputs.shape[-1]] * len(layers)), dict(
            zip(untrained, updated, strict=True)
        )
    results, updates = [], []
    for number, (layer, width) in enumerate(zip(layers, x.widths, strict=True)):
        variables = {
            name: cropped(values[name][number], variable.shape)
            for name, variable in named_variables(layer).items()
        }
        output, updated = call(
            layer,
            inputs[number, ..., :width],
            [variables[name] for name in trained],
            [variables[name] for name in untrained],
        )
        results.append(output)
        updates.append(updated)
    widths = [output.shape[-1] for output in results]
    stacked = {
        name: padded_stack([updated[index] for updated in updates], values[name].shape[1:])
        for index, name in enumerate(untrained)
    }
    shape = (*results[0].shape[:-1], max(widths))
    return x.with_values(padded_stack(results, shape), widths), stacked


def forward(
    positions: Sequence[Sequence[keras.Layer]], values: Sequence[Values], batch: Batch
) -> tuple[Tensor, list[Values]]:
    """The outputs of all heads in training, and the new values of what a forward pass changes.

    Args:
        positions: for each layer of the heads, this layer of every head.
        values: its variables.
        batch: read by all heads.

    Returns:
        `(heads, batch, outputs)`, and for each layer its moving averages and random states.
    """
    x = Activations(batch.x, True, (batch.x.shape[-1],) * len(positions[0]))
    updates = []
    for layers, variables in zip(positions, values, strict=True):
        layer, updated = layers[0], {}
        if type(layer) is keras.layers.Dense:
            x = dense(layers, variables, x)
        elif type(layer) in _NORMS and _normalises_channels(layer, len(batch.x.shape)):
            x, updated = batch_norm(layers, variables, x, batch)
        elif variables:
            x, updated = head_by_head(layers, variables, x, batch)
        elif x.shared and x.gain is None and x.offset is None:
            outputs = layer(x.values)
            x = Activations(outputs, True, (outputs.shape[-1],) * len(layers))
        elif is_elementwise(layer):
            x = x.with_values(with_padding_at_zero(layer, x.each, x.widths))
        else:
            x, updated = head_by_head(layers, variables, x, batch)
        updates.append(updated)
    return x.each, updates


def is_elementwise(layer: keras.Layer) -> bool:
    """Whether a layer without weights is a function of one value."""
    kinds = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Identity)
    if isinstance(layer, keras.layers.Activation):
        return layer.activation in ELEMENTWISE
    return type(layer) in kinds


def _moments(values: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over the axes from `first` on, as in Keras' batch norm."""
    return ops.moments(values, tuple(range(first, len(values.shape) - 1)))


def _normalises_channels(layer: keras.Layer, rank: int) -> bool:
    return getattr(layer, "axis", -1) in (-1, rank - 1) and not (
        getattr(layer, "renorm", False) or layer.synchronized
    )


def named_variables(layer: keras.Layer) -> dict[str, keras.Variable]:
    """The variables of a layer, random states too, by unique names."""
    named: dict[str, keras.Variable] = {}
    for variable in layer.variables:
        name = variable.name
        named[f"{name}_{len(named)}" if name in named else name] = variable
    return named


def cropped(value: Tensor, shape: Sequence[int]) -> Tensor:
    """The first elements of each axis."""
    return value[tuple(slice(size) for size in shape)] if tuple(value.shape) != tuple(shape) else value


def padded_stack(values: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """`(len(values), *shape)`: each value with zeros after it."""
    rows = []
    for value in values:
        sizes = [(0, size - length) for size, length in zip(shape, value.shape, strict=True)]
        rows.append(ops.pad(value, sizes) if any(missing for _, missing in sizes) else value)
    return ops.stack(rows)


def bucket(width: int) -> int:
    """Widths with the same bucket are padded to one another: w, 2w - 1 at most."""
    return math.ceil(math.log2(width)) if width > 1 else 0
