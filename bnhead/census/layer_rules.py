"""The rules of layers: from the boxes of a call's inputs to the box of its output.

A rule takes the call, the boxes of its inputs and the mode, and returns the box of the first output before
the layer's activation, or None if it has no bounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src import backend

from bnhead.census.activations import activation_name
from bnhead.census.boxes import Box, rounding_error, weighted_sums
from bnhead.graph import Call
from bnhead.layers import GhostBatchNormalization
from bnhead.layers.folding import inference_affine
from bnhead.layers.normalization import BatchNormalization
from bnhead.layers.plain import vanishes

_ONE_BY_ONE = 2**22  # most values of a tensor that are bounded one by one after a reshape


@dataclass(frozen=True)
class Mode:
    """The conditions under which the bounds hold.

    Attributes:
        training_batch: number of examples of a training batch; None in evaluation mode.
        observed: path of a layer, or the index of an input of the model -> least and greatest values on some
            data, in the form of `Box`. They narrow the boxes that kernels and norms read.
    """

    training_batch: int | None = None
    observed: dict[str | int, tuple[np.ndarray, np.ndarray]] | None = None


IN_EVALUATION = Mode()


def rule_of(layer: keras.Operation) -> Callable | None:
    """The rule of a layer whose `call` is Keras' own, or of an operation of `keras.ops`."""
    if isinstance(layer, keras.layers.Layer):
        for classes, rule in _LAYER_RULES:
            if any(isinstance(layer, each) and type(layer).call is each.call for each in classes):
                return rule
        if inference_affine(layer) is not None:
            return _normalised
        return _same if vanishes(layer) or activation_name(layer) else None
    if not type(layer).__module__.startswith("keras."):
        return None
    return _OPERATION_RULES.get(type(layer).__name__) or (_same if activation_name(layer) else None)


def channels_first(layer: keras.Operation) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))


def _error(layer: Any, terms: float) -> float:
    """`rounding_error` in the layer's compute type; operations have none."""
    return rounding_error(getattr(layer, "compute_dtype", None) or "float32", terms)


def _same(call: Call, boxes: list[Box], mode: Mode) -> Box:
    return boxes[0]


def _linear(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """A Dense layer or a convolution: kernel `(..., inputs, units)`, applied along the axis of channels."""
    layer, box = call.operation, boxes[0]
    if getattr(layer, "quantization_mode", None) is not None:
        return None
    kernel = _array(layer.kernel)
    if isinstance(layer, _TRANSPOSED):
        kernel, box = kernel.swapaxes(-1, -2), box.with_zero()  # some terms have no input at some positions
    return _weighted(call, _with_padding(layer, box), kernel, getattr(layer, "groups", 1))


def _depthwise(call: Call, boxes: list[Box], mode: Mode) -> Box:
    """Kernel `(..., channels, multiplier)`: unit c m + k of the output reads channel c alone."""
    layer = call.operation
    return _weighted(call, _with_padding(layer, boxes[0]), *_in_groups(layer.kernel))


def _separable(call: Call, boxes: list[Box], mode: Mode) -> Box:
    """A depthwise convolution without a bias, then one of a single position."""
    layer = call.operation
    box = _with_padding(layer, boxes[0])
    box = _weighted(call, box, *_in_groups(layer.depthwise_kernel), has_bias=False)
    return _weighted(call, box, _array(layer.pointwise_kernel))


def _with_padding(layer: Any, box: Box) -> Box:
    return box if getattr(layer, "padding", "valid") == "valid" else box.with_zero()


def _in_groups(kernel: Any) -> tuple[np.ndarray, int]:
    """The kernel of a depthwise convolution as one with a group for each channel, and their number."""
    kernel = _array(kernel)
    channels, multiplier = kernel.shape[-2:]
    return kernel.reshape(*kernel.shape[:-2], 1, channels * multiplier), channels


def _weighted(call: Call, box: Box, kernel: np.ndarray, groups: int = 1, *, has_bias: bool = True) -> Box:
    """The box of a layer's inputs weighted by a kernel, plus its bias."""
    layer, rank = call.operation, len(call.outputs[0].shape)
    axis = 0 if channels_first(layer) and rank > 2 else -1
    bias = _array(layer.bias).astype(np.float64) if has_bias and layer.use_bias else None
    return weighted_sums(box, kernel, bias, axis=axis, groups=groups, rank=rank, dtype=layer.compute_dtype)


def _normalised(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """A batch norm in its evaluation form, scale x + shift, or any layer with such a form.

    In training mode |z| <= sqrt(n - 1) for the n values of a channel in the batch, in exact arithmetic.
    """
    layer, box = call.operation, boxes[0]
    rank = len(call.outputs[0].shape)
    axis = getattr(layer, "axis", -1)
    axis = (axis[0] if isinstance(axis, (list, tuple)) else axis) % rank - 1
    shape = [1] * (rank - 1)
    shape[axis] = -1
    by_batch = mode.training_batch is not None and layer.trainable
    if by_batch or call.keywords.get("training"):
        return _batch_normalised(call, shape, mode)
    scale_and_shift = inference_affine(layer)
    if scale_and_shift is None:  # a batch norm over another axis than the last
        mean, variance = (_array(x).astype(np.float64) for x in (layer.moving_mean, layer.moving_variance))
        scale = (_array(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
        scale_and_shift = scale, (_array(layer.beta) if layer.center else 0.0) - scale * mean
    scale, shift = (np.reshape(array, shape) for array in scale_and_shift)
    beta = np.reshape(_array(layer.beta), shape) if getattr(layer, "center", False) else 0.0
    # shift = beta - scale mean, and the two may cancel; rounding is relative to both
    size = np.abs(shift) + 2 * np.abs(beta)
    return box.scaled(scale, shift, size, _error(layer, 8))


def _batch_normalised(call: Call, shape: list[int], mode: Mode) -> Box | None:
    layer, sizes = call.operation, list(call.outputs[0].shape[1:])
    del sizes[shape.index(-1)]
    bounded = (keras.layers.BatchNormalization, BatchNormalization, GhostBatchNormalization)
    # masked values are normalised, not counted
    is_masked = backend.get_keras_mask(call.inputs[0]) is not None
    if mode.training_batch is None or None in sizes or is_masked or getattr(layer, "renorm", False):
        return None
    if not any(type(layer) is each for each in bounded):
        return None
    largest = math.sqrt(max(mode.training_batch * math.prod(sizes) - 1, 0))
    z = Box.of(-largest, largest, len(call.outputs[0].shape))
    gamma, beta = (
        np.reshape(_array(getattr(layer, name)).astype(np.float64), shape) if used else default
        for name, used, default in (("gamma", layer.scale, 1.0), ("beta", layer.center, 0.0))
    )
    box = z.scaled(np.asarray(gamma), np.asarray(beta), np.abs(beta), _error(layer, 8))
    return replace(box, norms=None)


def _rescaled(call: Call, boxes: list[Box], mode: Mode) -> Box:
    layer = call.operation
    scale, shift = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
    return boxes[0].scaled(scale, shift, np.abs(shift), _error(layer, 4))


def _standardised(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """`keras.layers.Normalization`, whose mean and variance have an axis for the examples."""
    layer = call.operation
    if layer.invert or layer.mean is None or np.ndim(layer.mean) != boxes[0].rank:
        return None
    mean, variance = (_array(values).astype(np.float64)[0] for values in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), backend.epsilon())
    return boxes[0].scaled(scale, -scale * mean, np.abs(scale * mean), _error(layer, 4))


def _dropped(call: Call, boxes: list[Box], mode: Mode) -> Box:
    """Dropout: the identity in evaluation mode; in training 0, or the value divided by 1 - rate."""
    if mode.training_batch is None and not call.keywords.get("training"):
        return boxes[0]
    box, rate = boxes[0].with_zero(), call.operation.rate
    factor = (1 + 1e-6) / (1 - rate) if rate < 1 else 0.0
    return replace(box, low=box.low * factor, high=box.high * factor)


def _noisy(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """Noise that is added in training only."""
    is_training = mode.training_batch is not None or call.keywords.get("training")
    return None if is_training else boxes[0]


def _pool(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """A maximum, a mean, a crop, a repetition or a padding of values of the same unit, at any position."""
    layer, tensor = call.operation, call.inputs[0]
    box = _of_positions(call, boxes[0])
    if isinstance(layer, _ZERO_PADDINGS):
        return box.with_zero()
    if getattr(layer, "interpolation", "nearest") not in ("nearest", "bilinear"):
        return None
    if isinstance(layer, _MEANS):
        if getattr(layer, "padding", "valid") == "same":
            box = box.with_zero()
        positions = tensor.shape[2:] if channels_first(layer) else tensor.shape[1:-1]
        window = getattr(layer, "pool_size", positions)
        window = (window,) if isinstance(window, int) else window
        error = _error(layer, math.inf if None in window else math.prod(window))
        box = box.widened(min(error, 1.0))
    return box


def _of_positions(call: Call, box: Box) -> Box:
    """One bound for all positions of a map of units, in the form of the call's output."""
    axis = 0 if channels_first(call.operation) else -1
    output = call.outputs[0].shape
    shape = [1] * (len(output) - 1)
    shape[axis if len(output) > 2 else -1] = -1
    low, high = box.along(axis)
    norms = (
        None
        if box.norms is None
        else box.norms.max(tuple(i for i in range(box.low.ndim) if i != axis % box.low.ndim))
    )
    return Box(*(None if a is None else a.reshape(shape) for a in (low, high, norms)), affine=box.affine)


def _reshaped(call: Call, boxes: list[Box], mode: Mode) -> Box:
    """`Flatten`, `Reshape`, `Permute`: the same values in another order."""
    layer, box, source, target = call.operation, boxes[0], call.inputs[0].shape[1:], call.outputs[0].shape[1:]
    if None in source or None in target or math.prod(source) > _ONE_BY_ONE:
        extremes = (np.full((1,) * len(target), end) for end in (box.low.min(), box.high.max()))
        return Box(*extremes, affine=box.affine)
    order = tuple(range(len(source)))
    if isinstance(layer, keras.layers.Permute):
        order = tuple(axis - 1 for axis in layer.dims)
    elif channels_first(layer) and len(source) > 1:
        order = (*order[1:], 0)
    arrays = (
        None if a is None else np.broadcast_to(a, source).transpose(order).reshape(target)
        for a in (box.low, box.high, box.norms)
    )
    return Box(*arrays, affine=box.affine)


def _concatenated(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    shapes = [tensor.shape for tensor in call.inputs]
    axis = call.operation.axis % len(shapes[0]) - 1
    if axis < 0 or any(shape[axis + 1] is None for shape in shapes):
        return None
    has_norms = all(box.norms is not None for box in boxes)
    joined = []
    for arrays in zip(*((b.low, b.high, *[b.norms] * has_norms) for b in boxes), strict=True):
        common = np.broadcast_shapes(*((*a.shape[:axis], 1, *a.shape[axis + 1 :]) for a in arrays))
        sizes = (shape[axis + 1] for shape in shapes)
        wide = (
            np.broadcast_to(a, (*common[:axis], size, *common[axis + 1 :]))
            for a, size in zip(arrays, sizes, strict=True)
        )
        joined.append(np.concatenate(list(wide), axis))
    return Box(*joined, affine=any(box.affine for box in boxes))


def _averaged(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    total = _SUM(call, boxes, mode)
    return None if total is None else replace(total, low=total.low / len(boxes), high=total.high / len(boxes))


def _combined(
    call: Call, boxes: list[Box], mode: Mode, *, combine: Callable[[Box, Box], Box], rounds: bool = True
) -> Box | None:
    """Elementwise arithmetic of tensors of one rank, and of constants without an axis for the examples."""
    rank = len(call.outputs[0].shape)
    of_tensor = {id(tensor): box for tensor, box in zip(call.inputs, boxes, strict=True)}
    operands = []
    for operand in keras.tree.flatten((call.arguments, call.keywords)):
        box = of_tensor.get(id(operand))
        if box is None:
            if isinstance(operand, (bool, str)) or operand is None or np.ndim(operand) >= max(rank, 1):
                return None
            constant = _array(operand).astype(np.float64)
            box = Box(constant, constant)
        elif box.rank != rank:
            return None
        operands.append(box)
    result = operands[0]
    for operand in operands[1:]:
        result = combine(result, operand)
    if rounds:
        result = result.widened(_error(None, len(operands)))
    low, high = (np.reshape(a, (1,) * (rank - 1 - a.ndim) + a.shape) for a in (result.low, result.high))
    return Box(low, high, affine=any(box.affine for box in boxes))


def _embedded(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """A row of the table for each index."""
    layer, rank = call.operation, len(call.outputs[0].shape)
    if getattr(layer, "quantization_mode", None) is not None:
        return None
    table = _array(layer.embeddings).astype(np.float64)
    shape = [1] * (rank - 2) + [-1]
    return Box(table.min(0).reshape(shape), table.max(0).reshape(shape)).widened(_error(layer, 1))


def _recurrent(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """With tanh, and gates in [0, 1], the states are in [-1, 1]."""
    layer = call.operation
    gates = getattr(layer, "recurrent_activation", keras.activations.sigmoid)
    if activation_name(layer.activation) != "tanh" or activation_name(gates) not in (
        "sigmoid",
        "hard_sigmoid",
    ):
        return None
    return Box.of(-1, 1, len(call.outputs[0].shape)).widened(1e-4)


_SUM = partial(_combined, combine=Box.plus)
_DIFFERENCE = partial(_combined, combine=Box.minus)
_PRODUCT = partial(_combined, combine=Box.times)
_QUOTIENT = partial(_combined, combine=Box.over)
_MAXIMUM = partial(_combined, combine=Box.maximum, rounds=False)
_MINIMUM = partial(_combined, combine=Box.minimum, rounds=False)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_MEANS = (
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D),
    *(keras.layers.GlobalAveragePooling3D, keras.layers.UpSampling2D),
)
_ZERO_PADDINGS = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
_LAYER_RULES: tuple[tuple[tuple[type, ...], Callable], ...] = (
    (
        (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, *_TRANSPOSED),
        _linear,
    ),
    ((keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D), _depthwise),
    ((keras.layers.SeparableConv1D, keras.layers.SeparableConv2D), _separable),
    ((keras.layers.BatchNormalization, BatchNormalization), _normalised),
    ((keras.layers.Rescaling,), _rescaled),
    ((keras.layers.Normalization,), _standardised),
    (
        (
            *(keras.layers.Dropout, keras.layers.SpatialDropout1D),
            *(keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D),
        ),
        _dropped,
    ),
    ((keras.layers.GaussianNoise, keras.layers.GaussianDropout, keras.layers.AlphaDropout), _noisy),
    (
        (keras.layers.Identity, keras.layers.Activation, keras.layers.ActivityRegularization),
        _same,
    ),
    (
        (
            *(*_MEANS, *_ZERO_PADDINGS),
            *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
            *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D),
            *(keras.layers.GlobalMaxPooling3D, keras.layers.UpSampling1D, keras.layers.UpSampling3D),
            *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D),
        ),
        _pool,
    ),
    ((keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute), _reshaped),
    ((keras.layers.Concatenate,), _concatenated),
    ((keras.layers.Add,), _SUM),
    ((keras.layers.Average,), _averaged),
    ((keras.layers.Subtract,), _DIFFERENCE),
    ((keras.layers.Multiply,), _PRODUCT),
    ((keras.layers.Maximum,), _MAXIMUM),
    ((keras.layers.Minimum,), _MINIMUM),
    ((keras.layers.Embedding,), _embedded),
    ((keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN), _recurrent),
)
_OPERATION_RULES = {  # class of an operation of `keras.ops` -> its rule
    "Add": _SUM,
    "Concatenate": _concatenated,
    "Subtract": _DIFFERENCE,
    "Multiply": _PRODUCT,
    "TrueDivide": _QUOTIENT,
    "Maximum": _MAXIMUM,
    "Minimum": _MINIMUM,
}
