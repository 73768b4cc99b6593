"""Folding batch norms into the linear layers beside them, for inference."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import ops

from bnhead import graph
from bnhead.graph import Call, calls
from bnhead.layers.normalization import BatchNormalization
from bnhead.layers.plain import vanishes

Affine = tuple[np.ndarray, np.ndarray]  # scale and shift of each channel, float64


def inference_affine(layer: keras.layers.Layer) -> Affine | None:
    """Scale and shift of each channel that a layer is in inference; None for one that is no such map.

    A batch norm is y = gamma (x - m) / sqrt(v + eps) + beta: the scale is s = gamma / sqrt(v + eps), the
    shift beta - s m. Centring and scaling layers of bnhead's say theirs themselves.
    """
    if hasattr(layer, "inference_affine"):
        return layer.inference_affine()
    if not isinstance(layer, BatchNormalization) and not _computes_as(
        layer, (keras.layers.BatchNormalization,)
    ):
        return None
    if layer.axis not in (-1, layer.input_spec.ndim - 1):
        return None
    mean, variance = (_values(v) for v in (layer.moving_mean, layer.moving_variance))
    scale = (_values(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    return scale, (_values(layer.beta) if layer.center else 0.0) - scale * mean


def _computes_as(layer: keras.layers.Layer, kinds: tuple) -> bool:
    """Whether a layer's `call` is that of one of `kinds`, and not a subclass's of its own."""
    return any(isinstance(layer, kind) and type(layer).call is kind.call for kind in kinds)


def _values(variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), "float64")


def fold_batch_norm(model: keras.Model, only: Iterable[str] | None = None) -> keras.Model:
    """A copy of a functional model for inference, without the batch norms that can be folded away.

    In inference a batch norm is s x + t for each channel. Where x comes from a `Conv2D` or `Dense` without
    activation that feeds nothing else, that layer takes it over: kernel W diag(s), bias s b + t. Where all
    that reads it is a `Dense`, that one does: kernel diag(s) W, bias b + t W. Dropout between them is no
    hindrance, nor is average pooling or flattening before a `Dense`. Other norms stay: before an activation
    or a padded convolution, behind a sum, as in pre-activation nets. The outputs are the model's to rounding;
    in training mode the copy has no batch statistics there, so do not train it.

    Args:
        model: a functional model; it is left as it is.
        only: names of the norms that may be folded; None for all.

    Returns:
        A functional model with the same inputs, outputs and layer names, less the norms'.

    Raises:
        CopyError: the copy's outputs are not the model's.
    """
    folded, pairs = graph.copy(graph.inlined(model), name=f"{model.name}_folded"), True
    while pairs:  # of two norms in a row, the one beside the linear layer goes first
        pairs = _pairs(folded, None if only is None else set(only))
        folded = _without(folded, pairs) if pairs else folded
    graph.require_agreement(model, folded)
    return folded


@dataclass
class _TakenOver:
    """The norms that one linear layer takes over: the one before it and the one behind it."""

    before: keras.layers.Layer | None = None
    behind: keras.layers.Layer | None = None
    names: set[str] = field(default_factory=set)


def _without(model: keras.Model, taken: dict[str, _TakenOver]) -> keras.Model:
    gone = {name for one in taken.values() for name in one.names}

    def remake(layer):
        if layer.name in gone:
            return None
        if layer.name not in taken:
            return graph.same(layer)
        config = {**layer.get_config(), "use_bias": True}
        return type(layer).from_config(config), _folded_weights(layer, taken[layer.name])

    return graph.copy(model, remake)


def _folded_weights(layer: keras.layers.Layer, taken: _TakenOver) -> list[np.ndarray]:
    kernel, *bias = (weight.astype("float64") for weight in layer.get_weights())
    bias = bias[0] if bias else 0.0
    if taken.before is not None:
        repeats = kernel.shape[0] // len(inference_affine(taken.before)[0])  # more than 1 behind a Flatten
        scale, shift = (np.tile(values, repeats) for values in inference_affine(taken.before))
        kernel, bias = scale[:, None] * kernel, bias + shift @ kernel
    if taken.behind is not None:
        scale, shift = inference_affine(taken.behind)
        kernel, bias = kernel * scale, scale * bias + shift
    return [kernel, bias]


def _pairs(model: keras.Model, only: set[str] | None) -> dict[str, _TakenOver]:
    """Name of each linear layer that takes over norms -> those norms."""
    neighbours = _Neighbours(model)
    taken: dict[str, _TakenOver] = {}
    for call in neighbours.calls:
        norm = call.operation
        if only is not None and norm.name not in only:
            continue
        if not isinstance(norm, keras.layers.Layer) or not neighbours.called_once(norm):
            continue
        if call.keywords.get("training"):  # normalises by the batch, always
            continue
        if inference_affine(norm) is None:
            continue
        previous, following = neighbours.previous(call), neighbours.following(call)
        if previous and _linear(previous, (keras.layers.Conv2D, keras.layers.Dense)):
            taken.setdefault(previous.name, _TakenOver()).behind = norm
            taken[previous.name].names.add(norm.name)
        elif following and _linear(following, (keras.layers.Dense,), activated=True):
            taken.setdefault(following.name, _TakenOver()).before = norm
            taken[following.name].names.add(norm.name)
    return taken


def _linear(layer, kinds: tuple, *, activated: bool = False) -> bool:
    """Whether a layer is one of `kinds`, without activation unless it may be `activated`.

    Its kernel must be all that it multiplies by: neither LoRA's products nor quantised numbers.
    """
    return (
        _computes_as(layer, kinds)
        and not getattr(layer, "lora_enabled", False)
        and getattr(layer, "quantization_mode", None) is None
        and (activated or layer.activation is keras.activations.linear)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


# What an affine change of each channel passes through: the average of s x + t is s times x's average, and t.
_TRANSPARENT = (keras.layers.GlobalAveragePooling2D, keras.layers.Flatten)


class _Neighbours:
    """Which operation stands beside another with nothing but dropout between, and nobody else reading."""

    def __init__(self, model: keras.Model):
        self.calls = calls(model)
        self._made_by = {id(t): call for call in self.calls for t in call.outputs}
        self._readers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._readers.setdefault(id(tensor), []).append(call)
        self._outputs = {id(tensor) for tensor in model.outputs}
        names = [call.operation.name for call in self.calls]
        self._once = {name for name in names if names.count(name) == 1}

    def called_once(self, operation: keras.Operation) -> bool:
        return operation.name in self._once

    def previous(self, call: Call) -> keras.Operation | None:
        """What made the call's input, if nobody else reads it on the way."""
        before = self._made_by.get(id(call.inputs[0]))
        if before is None or self._reader(before) is None or not self.called_once(before.operation):
            return None
        return self.previous(before) if _is_identity(before) else before.operation

    def following(self, call: Call) -> keras.Operation | None:
        """What reads the call's output, if it alone does."""
        reader = self._reader(call)
        if reader is None or not self.called_once(reader.operation):
            return None
        commutes = _is_identity(reader) or _is_transparent(reader.operation)
        return self.following(reader) if commutes else reader.operation

    def _reader(self, call: Call) -> Call | None:
        """The one call that reads another's only output."""
        if len(call.outputs) != 1 or id(call.outputs[0]) in self._outputs:
            return None
        readers = self._readers.get(id(call.outputs[0]), [])
        return readers[0] if len(readers) == 1 else None


def _is_identity(call: Call) -> bool:
    """Whether a call is the identity in inference; a dropout of somebody's own may be on then."""
    known = _computes_as(call.operation, (keras.layers.Dropout, keras.layers.Identity))
    return (known or vanishes(call.operation)) and not call.keywords.get("training")


def _is_transparent(operation: keras.Operation) -> bool:
    return _computes_as(operation, _TRANSPARENT) and operation.data_format == "channels_last"
