"""Folding batch norms into the convolutions and dense layers before them, for inference."""

import keras
import numpy as np

from bnhead.graph import Call, calls, replay

_FOLDABLE = (keras.layers.Conv2D, keras.layers.Dense)  # with the output's channels on the kernel's last axis


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of a functional model for inference, without the batch norms that can be folded away.

    A batch norm in evaluation mode is y = gamma (x - m) / sqrt(v + eps) + beta. Where x comes from a `Conv2D`
    or `Dense` without activation that feeds nothing else, that layer takes it over: with
    s = gamma / sqrt(v + eps), its kernel becomes s W and its bias s (b - m) + beta. Other batch norms (before
    an activation's ReLU, behind a sum, as in pre-activation nets) stay. In evaluation mode the outputs are
    the model's to rounding; in training mode the copy has no batch statistics there, so do not train it.

    Args:
        model: a functional model; it is left as it is.

    Returns:
        A functional model of plain layers with the same inputs, outputs and layer names, less the norms'.
    """
    folded = _pairs(model)
    copies: dict[str, keras.layers.Layer] = {}

    def perform(operation, *arguments, **keywords):
        if operation.name in folded.values():
            return arguments[0]
        if not isinstance(operation, keras.layers.Layer):
            return operation(*arguments, **keywords)
        if operation.name not in copies:
            copies[operation.name] = _copy(operation, bias=operation.name in folded)
        return copies[operation.name](*arguments, **keywords)

    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    outputs = replay(model, inputs, perform)
    copied = keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=f"{model.name}_folded")
    for name, layer in copies.items():
        original = model.get_layer(name)
        norm = folded.get(name)
        layer.set_weights(
            _folded_weights(original, model.get_layer(norm)) if norm else original.get_weights()
        )
    return copied


def _pairs(model: keras.Model) -> dict[str, str]:
    """Name of each layer that takes over a batch norm -> name of that batch norm."""
    every = calls(model)
    readers: dict[int, list[Call]] = {}
    for call in every:
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    times = [call.operation.name for call in every]
    outputs = {id(tensor) for tensor in model.outputs}
    pairs = {}
    for call in every:
        layer, (tensor, *_) = call.operation, call.outputs
        following = [reader.operation for reader in readers.get(id(tensor), [])]
        alone = len(following) == 1 and id(tensor) not in outputs
        if (
            alone
            and _takes(layer, following[0])
            and times.count(layer.name) == times.count(following[0].name) == 1
        ):
            pairs[layer.name] = following[0].name
    return pairs


def _takes(layer, norm) -> bool:
    return (
        isinstance(layer, _FOLDABLE)
        and layer.activation is keras.activations.linear
        and isinstance(norm, keras.layers.BatchNormalization)
        and norm.axis in (-1, len(norm.input.shape) - 1)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


def _copy(layer: keras.layers.Layer, *, bias: bool) -> keras.layers.Layer:
    config = layer.get_config()
    return type(layer).from_config({**config, "use_bias": True} if bias else config)


def _folded_weights(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, *bias = (weight.astype("float64") for weight in layer.get_weights())
    mean, variance = (np.asarray(v, "float64") for v in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, "float64") if norm.scale else 1.0
    beta = np.asarray(norm.beta, "float64") if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return [kernel * scale, scale * ((bias[0] if bias else 0.0) - mean) + beta]
