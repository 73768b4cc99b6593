"""Interval arithmetic through a functional model: bounds of every tensor, without data.

A box bounds the values of a tensor. Each layer with a rule here turns the boxes of its inputs into the box of
its output; the output of any other layer is unbounded.

The bounds hold for the values that a backend computes, not only in exact arithmetic. A sum of n terms in an
arithmetic of unit roundoff u is wrong by at most g = n u / (1 - n u) of the sum of the absolute terms, in any
order, with or without fused operations. So positive terms count (1 + g) times and negative ones (1 - g)
times, in float64. A sum without positive terms is at most 0, as it is in floating point. float32 includes
TensorFloat-32. Not included are algorithms that transform their operands before they multiply (Winograd,
FFT), overflow, and values that are not finite.

Reference: Higham 2002, "Accuracy and stability of numerical algorithms", section 4.2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras.src import backend

from bnhead.graph import Call, functional, model_calls, nested
from bnhead.layers import GhostBatchNormalization
from bnhead.layers.folding import inference_affine
from bnhead.layers.normalization import BatchNormalization
from bnhead.layers.plain import vanishes

_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
_SMALLEST = {"float16": 2.0**-14, "float64": 2.0**-1022}  # normal number; smaller ones may become 0
_TF32 = 2.0**-10  # relative error of a product whose factors are rounded to 11 bits
_OWN = 2.0**-52  # the bounds are rounded themselves
_BLOCK = 2**22  # entries of a kernel that are in float64 at the same time


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds of a tensor's values for every example.

    Attributes:
        low, high: float64, with the tensor's axes without that of the examples; an axis of size 1 is common
            to all its indices.
        norms: norm of the incoming weights of each unit, of the same form; None if no kernel made the units.
        affine: whether the values are an affine function of a kernel or norm that no activation followed yet.
    """

    low: np.ndarray
    high: np.ndarray
    norms: np.ndarray | None = None
    affine: bool = False

    @classmethod
    def of(cls, low: float, high: float, rank: int) -> "Box":
        """The same bounds for all values of a tensor of `rank` axes."""
        shape = (1,) * max(rank - 1, 0)
        return cls(np.full(shape, low, np.float64), np.full(shape, high, np.float64))

    @property
    def rank(self) -> int:
        """Number of the tensor's axes, with that of the examples."""
        return self.low.ndim + 1

    def with_zero(self) -> "Box":
        """The box that also holds 0, as after a padding with zeros."""
        return replace(self, low=np.minimum(self.low, 0), high=np.maximum(self.high, 0))

    def along(self, axis: int, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Bounds for each index of one axis, counted without the examples: two `(size,)` or `(1,)` arrays."""
        others = tuple(i for i in range(self.low.ndim) if i != axis % self.low.ndim)
        bounds = self.low.min(others), self.high.max(others)
        return bounds if size is None else tuple(np.broadcast_to(bound, (size,)) for bound in bounds)

    def hull(self, box: "Box") -> "Box":
        """The smallest box that holds both."""
        return replace(self, low=np.minimum(self.low, box.low), high=np.maximum(self.high, box.high))

    def widened(self, share: float) -> "Box":
        """The box with a relative rounding error added."""
        low, high = self.low - share * np.abs(self.low), self.high + share * np.abs(self.high)
        return replace(self, low=low, high=high)


def unbounded(tensor: Any) -> Box:
    """The box of a tensor of which nothing but its type is known: an integer of eight bits, a truth value."""
    low, high = {"uint8": (0, 255), "int8": (-128, 127), "bool": (0, 1)}.get(
        backend.standardize_dtype(tensor.dtype), (-math.inf, math.inf)
    )
    return Box.of(low, high, len(tensor.shape))


@dataclass(frozen=True)
class Bounded:
    """A call of a layer with a rule.

    Attributes:
        before: the box of its pre-activation; of its output if it has no activation.
        after: the box of its output.
        axis: the axis of the units, counted without the examples.
    """

    before: Box
    after: Box
    axis: int

    def hull(self, bounded: "Bounded | None") -> "Bounded | None":
        """The bounds of both calls; None if they have different numbers of units, or one has no bounds."""
        if bounded is None or self.after.low.shape[self.axis] != bounded.after.low.shape[bounded.axis]:
            return None
        return replace(self, before=self.before.hull(bounded.before), after=self.after.hull(bounded.after))


@dataclass(frozen=True)
class Mode:
    """What the bounds hold for.

    Attributes:
        training_batch: number of examples of a training batch; None in evaluation mode.
        observed: path of a layer, or the index of an input of the model -> least and greatest values on some
            data, in the form of `Box`. They narrow the boxes that kernels and norms read.
    """

    training_batch: int | None = None
    observed: dict[str | int, tuple[np.ndarray, np.ndarray]] | None = None


IN_EVALUATION = Mode()


def bounds_of(model: keras.Model, paths: set[str], mode: Mode = IN_EVALUATION) -> dict[str, Bounded]:
    """The bounds of layers of a functional model, for all calls of a layer together.

    Args:
        model: any built model; a model with a `call` of its own has no bounds.
        paths: paths of the layers, as the taps name them; only the calls before these are computed.
        mode: evaluation mode without data, or another.
    """
    graph = functional(model)
    records: dict[str, Bounded | None] = {}
    if graph is not None and getattr(graph, "inputs", None):
        boxes = [unbounded(tensor) for tensor in graph.inputs]
        boxes = [_observed(box, mode, i) for i, box in enumerate(boxes)]
        _run(graph, boxes, "", paths, mode, records)
    return {path: bounded for path, bounded in records.items() if bounded is not None}


def _run(
    graph: Any,
    boxes: Sequence[Box],
    prefix: str,
    paths: set[str],
    mode: Mode,
    records: dict[str, Bounded | None],
) -> list[Box]:
    """Bounds of a graph's outputs for bounds of its inputs. Enters the calls into `records`."""
    calls = model_calls(graph)
    needed = {id(tensor) for tensor in graph.outputs} if prefix else set()
    ancestors = []
    for call in reversed(calls):
        path = prefix + call.operation.name
        is_selected = path in paths or any(name.startswith(f"{path}/") for name in paths)
        if is_selected or needed & set(map(id, call.outputs)):
            ancestors.append(call)
            needed |= set(map(id, call.inputs))
    values = dict(zip(map(id, graph.inputs), boxes, strict=True))
    for call in reversed(ancestors):
        path, inner = prefix + call.operation.name, nested(call)
        if inner is not None:
            argument, by_name = call.arguments[0], not isinstance(inner._inputs_struct, dict)
            if isinstance(argument, dict) and by_name:
                argument = [argument.get(tensor.name) for tensor in inner.inputs]
            pairs = zip(keras.tree.flatten(argument), inner.inputs, strict=True)
            inputs = [values.get(id(tensor)) or unbounded(declared) for tensor, declared in pairs]
            results = _run(inner, inputs, f"{path}/", paths, mode, records)
            values |= zip(map(id, call.outputs), results, strict=True)
            continue
        bounded = _bounded(call, [values[id(tensor)] for tensor in call.inputs], mode)
        values |= {id(tensor): unbounded(tensor) for tensor in call.outputs}
        output = call.outputs[0]
        after = values[id(output)] if bounded is None else bounded.after
        values[id(output)] = _observed(after, mode, path)
        if bounded is not None:
            records[path] = bounded.hull(records[path]) if path in records else bounded
    return [values.get(id(tensor)) or unbounded(tensor) for tensor in graph.outputs]


def _observed(box: Box, mode: Mode, key: str | int) -> Box:
    """A box within the observed bounds. Those of a pre-activation would be a count, not a certificate."""
    if mode.observed is None or key not in mode.observed or box.affine:
        return box
    low, high = mode.observed[key]
    return replace(box, low=np.maximum(box.low, low), high=np.minimum(box.high, high))


# ---- rules --------------------------------------------------------------------------------------


def _bounded(call: Call, boxes: list[Box], mode: Mode) -> Bounded | None:
    """The bounds of a call's first output; None without a rule."""
    layer, output = call.operation, call.outputs[0]
    axis = 0 if _channels_first(layer) and len(output.shape) > 2 else -1
    rule = _rule_of(layer)
    if rule is None or min(len(tensor.shape) for tensor in (output, *call.inputs)) < 2:
        return None
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        before = rule(call, boxes, mode)
        if before is None:
            return None
        function = getattr(layer, "activation", layer)
        after = activated(function, before) if function is not layer or activation_name(layer) else before
    return Bounded(before, after, axis)


def _rule_of(layer: keras.Operation) -> Callable | None:
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


def _channels_first(layer: keras.Operation) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))


def _error(layer: Any, terms: float) -> float:
    """Bound of the rounding error of a sum of so many terms, relative to the sum of their absolute values."""
    roundoff = _ROUNDOFF.get(getattr(layer, "compute_dtype", None) or "float32", 1.0)
    error = (terms + 8) * (roundoff + _OWN)
    return error / (1 - error) if error < 0.5 else 1.0


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
    if getattr(layer, "padding", "valid") != "valid":
        box = box.with_zero()
    bias = _array(layer.bias).astype(np.float64) if layer.use_bias else None
    return _weighted(layer, box, kernel, bias, getattr(layer, "groups", 1), len(call.outputs[0].shape))


def _depthwise(call: Call, boxes: list[Box], mode: Mode) -> Box:
    """Kernel `(..., channels, multiplier)`: unit c m + k of the output reads channel c alone."""
    layer = call.operation
    box = boxes[0].with_zero() if layer.padding != "valid" else boxes[0]
    bias = _array(layer.bias).astype(np.float64) if layer.use_bias else None
    return _depthwise_of(layer, _array(layer.kernel), bias, box, len(call.outputs[0].shape))


def _depthwise_of(layer: Any, kernel: np.ndarray, bias: np.ndarray | None, box: Box, rank: int) -> Box:
    channels, multiplier = kernel.shape[-2:]
    kernel = kernel.reshape(*kernel.shape[:-2], 1, channels * multiplier)
    return _weighted(layer, box, kernel, bias, channels, rank)


def _separable(call: Call, boxes: list[Box], mode: Mode) -> Box:
    layer, rank = call.operation, len(call.outputs[0].shape)
    box = boxes[0].with_zero() if layer.padding != "valid" else boxes[0]
    box = _depthwise_of(layer, _array(layer.depthwise_kernel), None, box, rank)
    bias = _array(layer.bias).astype(np.float64) if layer.use_bias else None
    return _weighted(layer, box, _array(layer.pointwise_kernel), bias, 1, rank)


def _weighted(
    layer: Any, box: Box, kernel: np.ndarray, bias: np.ndarray | None, groups: int, rank: int
) -> Box:
    """The box of sums of inputs weighted by a kernel, and the norms of the units' weights."""
    axis = 0 if _channels_first(layer) and rank > 2 else -1
    inputs, units = kernel.shape[-2:]
    low, high = (bound.reshape(groups, 1, inputs) for bound in box.along(axis, inputs * groups))
    positive, negative, norms = _signed_sums(kernel)
    positive, negative = (
        sums.reshape(inputs, groups, -1).transpose(1, 0, 2) for sums in (positive, negative)
    )
    bias = np.zeros(units) if bias is None else bias
    bias = bias.reshape(groups, 1, -1)
    dtype = layer.compute_dtype
    factors = _TF32 if dtype == "float32" else 0
    rounding = factors + _error(layer, math.prod(kernel.shape[:-1])), _SMALLEST.get(dtype, 2.0**-126)
    highs = upper_bound(low, high, positive, negative, bias, *rounding)
    lows = -upper_bound(low, high, -negative, -positive, -bias, *rounding)
    finite = np.isfinite(norms) & np.isfinite(bias.reshape(-1))
    lows, highs = (
        np.where(finite, array.reshape(-1), end) for array, end in ((lows, -np.inf), (highs, np.inf))
    )
    shape = [1] * (rank - 1)
    shape[axis] = units
    return Box(*(array.reshape(shape) for array in (lows, highs, norms)), affine=True)


def _signed_sums(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over positions of a kernel's positive and its negative entries, and norms of the units' weights.

    `(inputs, units)` twice and `(units,)`, float64.
    """
    inputs, units = kernel.shape[-2:]
    positive, negative, squares = np.zeros((inputs, units)), np.zeros((inputs, units)), np.zeros(units)
    step = max(1, _BLOCK // max(units, 1))
    for position in kernel.reshape(-1, inputs, units):
        for start in range(0, inputs, step):
            block = position[start : start + step].astype(np.float64)
            positive[start : start + step] += np.maximum(block, 0)
            negative[start : start + step] += np.minimum(block, 0)
            squares += np.square(block).sum(0)
    return positive, negative, np.sqrt(squares)


def upper_bound(
    low: np.ndarray,
    high: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    bias: np.ndarray,
    error: float,
    smallest: float,
) -> np.ndarray:
    """Upper bounds of sums of weighted inputs plus a bias, as computed in floating point.

    Args:
        low, high: `(..., 1, inputs)` bounds of the inputs.
        positive, negative: `(..., inputs, units)` the positive and the negative weights, 0 elsewhere.
        bias: `(..., 1, units)`.
        error: relative error of a sum (`_error`).
        smallest: products below it may be lost.

    Returns:
        `(..., 1, units)` float64.
    """
    is_open = [np.isinf(end).swapaxes(-1, -2) for end in (high, low)]
    top, bottom = (np.where(np.isinf(end), 0, end) for end in (high, low))
    above = _dot(np.maximum(top, 0), positive) + _dot(np.minimum(bottom, 0), negative) + np.maximum(bias, 0)
    below = _dot(np.minimum(top, 0), positive) + _dot(np.maximum(bottom, 0), negative) + np.minimum(bias, 0)
    open_ends = ((positive > 0) & is_open[0] | (negative < 0) & is_open[1]).any(-2, keepdims=True)
    below = np.minimum(max(1 - error, 0) * below + low.shape[-1] * smallest, 0)
    return np.where(open_ends, np.inf, (1 + error) * above + below)


def _dot(vector: np.ndarray, matrix: np.ndarray) -> np.ndarray | float:
    return vector @ matrix if vector.any() else 0.0  # most of them are 0


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
    affine = inference_affine(layer) or _affine_of(layer)
    scale, shift = (np.reshape(array, shape) for array in affine)
    beta = np.reshape(_array(layer.beta), shape) if getattr(layer, "center", False) else 0.0
    # shift = beta - scale mean, and the two may cancel; rounding is relative to both
    size = np.abs(shift) + 2 * np.abs(beta)
    return _affine(box, scale, shift, size, _error(layer, 8))


def _affine_of(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """As `inference_affine`, for a batch norm over any axis."""
    mean, variance = _array(layer.moving_mean).astype(np.float64), _array(layer.moving_variance)
    scale = (_array(layer.gamma) if layer.scale else 1.0) / np.sqrt(
        variance.astype(np.float64) + layer.epsilon
    )
    return scale, (_array(layer.beta) if layer.center else 0.0) - scale * mean


def _affine(box: Box, scale: np.ndarray, shift: np.ndarray, size: np.ndarray, error: float) -> Box:
    """The box of scale x + shift, with an error relative to |scale x| and to `size`."""
    ends = [np.where(scale == 0, 0, scale * np.where(scale == 0, 0, end)) for end in (box.low, box.high)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    bounds = [end + shift + sign * error * (np.abs(end) + size) for end, sign in ((low, -1), (high, 1))]
    bounds = [np.where(np.isinf(end), end, bound) for end, bound in zip((low, high), bounds, strict=True)]
    norms = None if box.norms is None else np.abs(scale) * box.norms
    return Box(*bounds, norms, affine=True)


def _batch_normalised(call: Call, shape: list[int], mode: Mode) -> Box | None:
    layer, sizes = call.operation, list(call.outputs[0].shape[1:])
    del sizes[shape.index(-1)]
    bounded = (keras.layers.BatchNormalization, BatchNormalization, GhostBatchNormalization)
    is_masked = (
        backend.get_keras_mask(call.inputs[0]) is not None
    )  # masked values are normalised, not counted
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
    box = _affine(z, np.asarray(gamma), np.asarray(beta), np.abs(beta), _error(layer, 8))
    return replace(box, norms=None)


def _rescaled(call: Call, boxes: list[Box], mode: Mode) -> Box:
    layer = call.operation
    scale, shift = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
    return _affine(boxes[0], scale, shift, np.abs(shift), _error(layer, 4))


def _standardised(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """`keras.layers.Normalization`, whose mean and variance have an axis for the examples."""
    layer = call.operation
    if layer.invert or layer.mean is None or np.ndim(layer.mean) != boxes[0].rank:
        return None
    mean, variance = (_array(values).astype(np.float64)[0] for values in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), backend.epsilon())
    return _affine(boxes[0], scale, -scale * mean, np.abs(scale * mean), _error(layer, 4))


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


def _padded(call: Call, boxes: list[Box], mode: Mode) -> Box:
    """Zeros beside the values; one bound for all positions."""
    return _of_positions(call, boxes[0].with_zero())


def _pooled(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    """A maximum, a mean, a crop or a repetition of values of the same unit, at any position."""
    layer, tensor = call.operation, call.inputs[0]
    box = _of_positions(call, boxes[0])
    if getattr(layer, "interpolation", "nearest") not in ("nearest", "bilinear"):
        return None
    if isinstance(layer, _MEANS):
        if getattr(layer, "padding", "valid") == "same":
            box = box.with_zero()
        positions = tensor.shape[2:] if _channels_first(layer) else tensor.shape[1:-1]
        window = getattr(layer, "pool_size", positions)
        window = (window,) if isinstance(window, int) else window
        error = _error(layer, math.inf if None in window else math.prod(window))
        box = box.widened(min(error, 1.0))
    return box


def _of_positions(call: Call, box: Box) -> Box:
    """One bound for all positions of a map of units, in the form of the call's output."""
    axis = 0 if _channels_first(call.operation) else -1
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
    if None in source or None in target or math.prod(source) > _BLOCK:
        extremes = (np.full((1,) * len(target), end) for end in (box.low.min(), box.high.max()))
        return Box(*extremes, affine=box.affine)
    order = tuple(range(len(source)))
    if isinstance(layer, keras.layers.Permute):
        order = tuple(axis - 1 for axis in layer.dims)
    elif _channels_first(layer) and len(source) > 1:
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


def _summed(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    return _combined(call, boxes, lambda a, b: Box(a.low + b.low, a.high + b.high), len(boxes))


def _averaged(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    total = _summed(call, boxes, mode)
    return None if total is None else replace(total, low=total.low / len(boxes), high=total.high / len(boxes))


def _subtracted(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    return _combined(call, boxes, lambda a, b: Box(a.low - b.high, a.high - b.low), 2)


def _maximum(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    maximum = np.maximum
    return _combined(call, boxes, lambda a, b: Box(maximum(a.low, b.low), maximum(a.high, b.high)), 0)


def _minimum(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    minimum = np.minimum
    return _combined(call, boxes, lambda a, b: Box(minimum(a.low, b.low), minimum(a.high, b.high)), 0)


def _product(a: Box, b: Box) -> Box:
    ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    ends = [np.where(np.isnan(end), 0, end) for end in ends]  # 0 times an open end: every value is finite
    return Box(np.minimum.reduce(ends), np.maximum.reduce(ends))


def _multiplied(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    return _combined(call, boxes, _product, len(boxes))


def _divided(call: Call, boxes: list[Box], mode: Mode) -> Box | None:
    def quotient(a: Box, b: Box) -> Box:
        crosses = (b.low <= 0) & (b.high >= 0)
        low, high = (np.where(crosses, end, 1 / x) for end, x in ((-np.inf, b.high), (np.inf, b.low)))
        return _product(a, Box(low, high))

    return _combined(call, boxes, quotient, 2)


def _combined(call: Call, boxes: list[Box], combine: Callable[[Box, Box], Box], sums: int) -> Box | None:
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
    if sums:
        result = result.widened(_error(None, sums))
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


_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_MEANS = (
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D),
    *(keras.layers.GlobalAveragePooling3D, keras.layers.UpSampling2D),
)
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
    ((keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D), _padded),
    (
        (
            *_MEANS,
            *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
            *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D),
            *(keras.layers.GlobalMaxPooling3D, keras.layers.UpSampling1D, keras.layers.UpSampling3D),
            *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D),
        ),
        _pooled,
    ),
    ((keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute), _reshaped),
    ((keras.layers.Concatenate,), _concatenated),
    ((keras.layers.Add,), _summed),
    ((keras.layers.Average,), _averaged),
    ((keras.layers.Subtract,), _subtracted),
    ((keras.layers.Multiply,), _multiplied),
    ((keras.layers.Maximum,), _maximum),
    ((keras.layers.Minimum,), _minimum),
    ((keras.layers.Embedding,), _embedded),
    ((keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN), _recurrent),
)
_OPERATION_RULES = {  # class of an operation of `keras.ops` -> its rule
    "Add": _summed,
    "Concatenate": _concatenated,
    "Subtract": _subtracted,
    "Multiply": _multiplied,
    "TrueDivide": _divided,
    "Maximum": _maximum,
    "Minimum": _minimum,
}


# ---- activations --------------------------------------------------------------------------------

_RANGES = {  # name -> least and greatest value of a function that is 0 at 0 and grows above 0
    "tanh": (-1, 1),
    "softsign": (-1, 1),
    "hard_tanh": (-1, 1),
    "silu": (-0.2785, math.inf),
    "swish": (-0.2785, math.inf),
    "gelu": (-0.1701, math.inf),
    "mish": (-0.3089, math.inf),
    "hard_silu": (-0.3751, math.inf),
    "hard_swish": (-0.3751, math.inf),
    "elu": (-1, math.inf),  # times its alpha
    "selu": (-1.7582, math.inf),
    "celu": (-1, math.inf),
}
_POSITIVE = {
    "sigmoid": 1,
    "hard_sigmoid": 1,
    "softmax": 1,
    "softplus": math.inf,  # but by less than 0.6932 above its input
    "exponential": math.inf,
}  # name -> greatest value of a function that is never below 0
_SHAPED = ("relu", "relu6", "leaky_relu", "linear", *_RANGES, *_POSITIVE)
_LIBRARIES = ("tensorflow.", "jax.", "torch.")  # their functions are what their names say


def activation_name(function: Any) -> str:
    """Name of an activation function, layer or operation with known bounds; "" for any other."""
    if isinstance(function, keras.Operation):
        cls = type(function)
        if not cls.__module__.startswith("keras."):
            return ""
        # an operation's class is named after its function in camel case: `LeakyRelu` is `leaky_relu`
        name = cls.__name__.replace("ReLU", "Relu").replace("ELU", "Elu")
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
    else:
        module, name = (getattr(function, key, "") or "" for key in ("__module__", "__name__"))
        is_keras = module.startswith("keras.")
        if not is_keras and (not module.startswith(_LIBRARIES) or name == "leaky_relu"):  # of several slopes
            return ""
    return name if name in _SHAPED else ""


def activated(function: Any, box: Box) -> Box:
    """The box of an activation's output, unbounded if the activation is not known.

    Args:
        function: a function, a layer or an operation.
        box: that of its input.
    """
    name = activation_name(function)
    if name == "linear":
        return box
    low, high = box.low, box.high
    slope, least, most = _rectifier_options(function, name)
    if name in ("relu", "relu6", "leaky_relu") and slope == 0:
        # threshold and more pass, and at 0 passing is 0 too
        low = np.where(low < least, 0, np.minimum(low, most))
        high = np.where(high < least, 0, np.minimum(high, most))
        low, high = np.minimum(low, high), np.maximum(low, high)  # a negative threshold jumps below 0
        if least < 0:
            low, high = np.minimum(low, np.minimum(least, 0)), np.maximum(high, 0)
    elif name in ("relu", "leaky_relu") and least == 0 and slope > 0:
        low, high = (np.minimum(np.where(end > 0, end, slope * end), most) for end in (low, high))
        low, high = np.where(low < 0, low * (1 + 1e-3), low), np.where(high < 0, high * (1 - 1e-3), high)
    elif name in _RANGES:
        least, most = _RANGES[name]
        low = np.where(low >= 0, 0, 1.001 * least * float(getattr(function, "alpha", 1)))
        high = np.where(high <= 0, 0, np.minimum(1.06 * high, 1.001 * most))
    elif name in _POSITIVE:
        most = np.maximum(high, 0) + 0.7 if name == "softplus" else 1.001 * _POSITIVE[name]
        low, high = np.zeros_like(low), np.full_like(high, most)
    else:
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    return Box(low, high, box.norms)


def _rectifier_options(function: Any, name: str) -> tuple[float, float, float]:
    """Slope below the threshold, threshold, and greatest value of a rectifier."""
    slope = getattr(function, "negative_slope", 0.2 if name == "leaky_relu" else 0.0)
    most = getattr(function, "max_value", None)
    most = 6.0 if name == "relu6" else math.inf if most is None else most
    return float(slope or 0), float(getattr(function, "threshold", 0) or 0), float(most)
