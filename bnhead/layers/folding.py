"""Folding batch norms into adjacent linear layers, for inference."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from bnhead import graph
from bnhead.graph.calls import Call, calls_as, model_calls
from bnhead.layers.normalization import BatchNormalization
from bnhead.layers.plain import vanishes

Affine = tuple[np.ndarray, np.ndarray]  # scale and shift of each channel, float64


def inference_affine(layer: keras.layers.Layer) -> Affine | None:
    """Scale and shift of each channel that a layer applies in inference; None for any other layer.

    A batch norm is y = gamma (x - m) / sqrt(v + eps) + beta: the scale is s = gamma / sqrt(v + eps), the
    shift beta - s m. Centring and scaling layers have a method `inference_affine`.
    """
    if hasattr(layer, "inference_affine"):
        return layer.inference_affine()
    if not isinstance(layer, BatchNormalization) and not calls_as(layer, (keras.layers.BatchNormalization,)):
        return None
    if layer.axis not in (-1, layer.input_spec.ndim - 1):
        return None
    mean, variance = (_as_float64(v) for v in (layer.moving_mean, layer.moving_variance))
    scale = (_as_float64(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    return scale, (_as_float64(layer.beta) if layer.center else 0.0) - scale * mean


def _as_float64(variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), "float64")


def fold_batch_norm(model: keras.Model, only: Iterable[str] | None = None) -> keras.Model:
    """A copy of a functional model for inference, with its batch norms folded into linear layers.

    In inference a batch norm is s x + t for each channel. If x comes from a `Conv2D` or `Dense` without
    activation, and nothing else reads x, the norm is folded into that layer: kernel W diag(s), bias s b + t.
    If a `Dense` is its only reader, the norm is folded into this one: kernel diag(s) W, bias b + t W. Dropout
    may lie between them; so may average pooling or flattening before a `Dense`. Other norms remain: before an
    activation or a padded convolution, and after a sum, as in pre-activation nets. The outputs equal the
    model's to rounding. In training mode the copy lacks the batch statistics, so do not train it.

    Args:
        model: a functional model, which does not change.
        only: names of the norms that may be folded; None for all.

    Returns:
        A functional model with the same inputs, outputs and layer names, without the folded norms.

    Raises:
        CopyError: the outputs differ.
    """
    folded = graph.copy(graph.inlined(model), name=f"{model.name}_folded")
    names = None if only is None else set(only)

    def remake(layer):
        if any(layer in (fold.norm_before, fold.norm_after) for fold in folds.values()):
            return None
        if layer.name not in folds:
            return graph.clone_layer(layer)
        config = {**layer.get_config(), "use_bias": True}
        return type(layer).from_config(config), folds[layer.name].weights(layer)

    # repeated, since of two norms in a row only the one next to the linear layer folds at a time
    while folds := foldable_norms(folded, names):
        folded = graph.copy(folded, remake)
    graph.require_agreement(model, folded)
    return folded


@dataclass
class _Fold:
    """The norms that are folded into one linear layer: one before it and one after it."""

    norm_before: keras.layers.Layer | None = None
    norm_after: keras.layers.Layer | None = None

    def weights(self, layer: keras.layers.Layer) -> list[np.ndarray]:
        """Kernel and bias of the linear layer with its norms folded in, float64."""
        kernel, *bias = (weight.astype("float64") for weight in layer.get_weights())
        bias = bias[0] if bias else 0.0
        if self.norm_before is not None:
            scale, shift = inference_affine(self.norm_before)
            repeats = kernel.shape[0] // len(scale)  # above 1 after a Flatten: channels are its fastest axis
            scale, shift = np.tile(scale, repeats), np.tile(shift, repeats)
            kernel, bias = scale[:, None] * kernel, bias + shift @ kernel
        if self.norm_after is not None:
            scale, shift = inference_affine(self.norm_after)
            kernel, bias = kernel * scale, scale * bias + shift
        return [kernel, bias]


def foldable_norms(model: keras.Model, only: set[str] | None = None) -> dict[str, _Fold]:
    """Name of each linear layer that norms can be folded into -> those norms."""
    neighbours = _Neighbours(model)
    folds: dict[str, _Fold] = {}
    for call in neighbours.calls:
        norm = call.operation
        if only is not None and norm.name not in only:
            continue
        if not isinstance(norm, keras.layers.Layer) or not neighbours.is_called_once(norm):
            continue
        if call.keywords.get("training"):  # always normalises by the batch
            continue
        if inference_affine(norm) is None:
            continue
        previous, following = neighbours.previous(call), neighbours.following(call)
        if previous and _is_linear(previous, (keras.layers.Conv2D, keras.layers.Dense)):
            folds.setdefault(previous.name, _Fold()).norm_after = norm
        elif following and _is_linear(following, (keras.layers.Dense,), may_activate=True):
            folds.setdefault(following.name, _Fold()).norm_before = norm
    return folds


def _is_linear(layer, classes: tuple, *, may_activate: bool = False) -> bool:
    """Whether a layer is one of `classes` that multiplies by its kernel alone, without LoRA or quantisation.

    `may_activate` allows an activation after the product.
    """
    return (
        calls_as(layer, classes)
        and not getattr(layer, "lora_enabled", False)
        and getattr(layer, "quantization_mode", None) is None
        and (may_activate or layer.activation is keras.activations.linear)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


class _Neighbours:
    """The operations before and after a call, across dropout, if nothing else reads the tensors between."""

    def __init__(self, model: keras.Model):
        self.calls = model_calls(model)
        self._producers = {id(tensor): call for call in self.calls for tensor in call.outputs}
        self._readers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._readers.setdefault(id(tensor), []).append(call)
        self._outputs = {id(tensor) for tensor in model.outputs}
        names = [call.operation.name for call in self.calls]
        self._unique = {name for name in names if names.count(name) == 1}

    def is_called_once(self, operation: keras.Operation) -> bool:
        return operation.name in self._unique

    def previous(self, call: Call) -> keras.Operation | None:
        """The operation whose output only this call reads."""
        producer = self._producers.get(id(call.inputs[0]))
        if producer is None or not self._only_reader(producer) or not self.is_called_once(producer.operation):
            return None
        return self.previous(producer) if _is_identity(producer) else producer.operation

    def following(self, call: Call) -> keras.Operation | None:
        """The only reader of the call's output, also across an operation that commutes with an affine map.

        Average pooling and flattening commute: the average of s x + t is s times the average of x, plus t.
        """
        reader = self._only_reader(call)
        if reader is None or not self.is_called_once(reader.operation):
            return None
        layer = reader.operation
        commutes = calls_as(layer, (keras.layers.GlobalAveragePooling2D, keras.layers.Flatten))
        if _is_identity(reader) or (commutes and layer.data_format == "channels_last"):
            return self.following(reader)
        return layer

    def _only_reader(self, call: Call) -> Call | None:
        if len(call.outputs) != 1 or id(call.outputs[0]) in self._outputs:
            return None
        readers = self._readers.get(id(call.outputs[0]), [])
        return readers[0] if len(readers) == 1 else None


def _is_identity(call: Call) -> bool:
    """Whether a call is the identity in inference. A user's subclass of dropout may drop there too."""
    is_dropout = calls_as(call.operation, (keras.layers.Dropout, keras.layers.Identity))
    return (is_dropout or vanishes(call.operation)) and not call.keywords.get("training")
