"""Whether a copy of a model computes the same as the model."""

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bnhead.errors import CopyError
from bnhead.graph.calls import flat_inputs, functional
from bnhead.texts import one_line

_SIZES = (64, 32, 224, 8)  # tried in turn for an unknown size
_TOLERANCE = {"float16": 0.1, "bfloat16": 0.1}
# TensorFloat-32 has 10 bits, and a fold changes where rounding occurs. Lost state has much larger effects.
_FLOAT32_TOLERANCE = 1e-2
_PART = 2**18  # numbers in the inputs of one pass: 85 images of 32 x 32 x 3 pixels, 1 of 224 x 224 x 3


def require_agreement(
    model: keras.Model, copied: keras.Model, data: Any = None, *, name: str = "a copy"
) -> None:
    """Compares a copy's outputs in inference with the model's.

    Outputs cannot be compared if they are not finite, differ between calls (Monte Carlo dropout), or change
    as much with rounding of the inputs (a deep net with statistics of other data).

    Args:
        model: a functional model.
        copied: its copy, with the same outputs and the same inputs or fewer.
        data: a few inputs of `model`; None generates some. If the model accepts none of these, it is not
            compared, with a warning.
        name: name of the copy in messages.

    Raises:
        CopyError: the outputs differ by more than rounding, or the copy does not run on inputs of the model.
    """
    model = functional(model)
    trials = [[data]] if data is not None else [random_inputs(model, pixels) for pixels in (False, True)]
    dtypes = {layer.compute_dtype for layer in model._flatten_layers() if layer.weights}
    tolerance = max(_TOLERANCE.get(dtype, _FLOAT32_TOLERANCE) for dtype in {*dtypes, "float32"})
    for inputs in trials:
        difference = _first_difference(model, copied, inputs, name, tolerance)
        if difference is not None and not difference <= tolerance:
            raise CopyError(
                f"{name} of model {model.name!r} differs from it by {difference:.2g} of its largest output: "
                "a layer holds state that is neither in its config nor in what it saves"
            )


def _first_difference(
    model: keras.Model, copied: keras.Model, trials: Iterable[Any], name: str, tolerance: float
) -> float | None:
    """`relative_difference` on the first inputs that the model accepts; None if rounding explains it."""
    for inputs in trials:
        try:
            expected = outputs(model, inputs)
        except Exception as error:  # a layer may raise anything for inputs that it does not accept
            refusal = one_line(str(error))[:200]
            continue
        try:
            difference = relative_difference(model, copied, inputs, expected)
        except Exception as error:
            raise CopyError(
                f"{name} of model {model.name!r} does not run: {one_line(str(error))[:200]}"
            ) from error
        if difference is None or difference <= tolerance:
            return difference
        # a fold rounds in each layer, a changed input only once
        return None if difference <= 10 * _effect_of_rounding(model, inputs, expected) else difference
    warnings.warn(f"the copy of model {model.name!r} is not compared with it: {refusal}", stacklevel=4)
    return None


def relative_difference(
    model: keras.Model, copied: keras.Model, inputs: Any, expected: list[np.ndarray] | None = None
) -> float | None:
    """Largest absolute difference of the outputs, divided by the largest absolute output unless that is 0.

    None if an output of `model` is not finite or differs between two calls. `expected` may pass the outputs
    of `model`.
    """
    expected = outputs(model, inputs) if expected is None else expected
    pairs = zip(expected, outputs(copied, select_inputs(model, copied, inputs)), strict=True)
    largest = max(np.abs(array).max(initial=0) for array in expected)
    difference = float(max(np.abs(a - b).max(initial=0) for a, b in pairs) / (largest or 1))
    if difference == 0:
        return difference
    repeated = outputs(model, inputs)
    return difference if all(map(np.array_equal, expected, repeated)) else None  # NaN is not equal to itself


def _effect_of_rounding(model: keras.Model, inputs: Any, expected: list[np.ndarray]) -> float:
    """Largest relative change of the outputs if the inputs' numbers change by 1e-6 of themselves."""
    rng = np.random.default_rng(0)

    def rounded(x: Any) -> Any:
        if x is None or not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
            return x
        array = keras.ops.convert_to_numpy(x)
        return (array * (1 + 1e-6 * rng.choice([-1, 1], array.shape))).astype(array.dtype)

    changed = outputs(model, keras.tree.map_structure(rounded, inputs))
    largest = max(np.abs(array).max(initial=0) for array in expected)
    return max(np.abs(a - b).max(initial=0) for a, b in zip(expected, changed, strict=True)) / (largest or 1)


def outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    """A model's outputs in inference, float64, without changing the model.

    Seeds are 0 in every call and model, so that layers that are random in inference can be compared.

    Returns:
        Each output, for a few examples at a time: an eager pass of a functional model keeps all its tensors
        until it ends, 1.2 GB for an image of NASNetLarge. Models are comparable as they see the same parts.
    """
    generators = [g for layer in model._flatten_layers() for g in layer._seed_generators]
    states = [(g.state, keras.ops.zeros_like(g.state)) for g in generators]
    results = []
    for part in _parts(model, inputs):
        with keras.StatelessScope(state_mapping=states):
            results += keras.tree.flatten(model(part, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(x), "float64") for x in results]


def _parts(model: keras.Model, inputs: Any) -> Iterator[Any]:
    """Tensors of a few examples each, at least one, of at most `_PART` numbers.

    Inputs are a single part if the model fixes its batch size, or if they are not batches of one size.
    """
    inputs = keras.tree.map_structure(lambda x: None if x is None else keras.ops.convert_to_tensor(x), inputs)
    arrays = [x for x in keras.tree.flatten(inputs) if x is not None]
    sizes = {x.shape[0] if x.shape else None for x in arrays}
    examples = sizes.pop() if len(sizes) == 1 else None
    if not examples or any(tensor.shape[0] is not None for tensor in model.inputs):
        yield inputs
        return
    numbers = sum(math.prod(x.shape[1:]) for x in arrays)
    size = max(1, _PART // max(1, numbers))
    for start in range(0, examples, size):
        rows = slice(start, start + size)
        yield keras.tree.map_structure(lambda x, rows=rows: None if x is None else x[rows], inputs)


def select_inputs(model: keras.Model, copied: keras.Model, inputs: Any) -> Any:
    """The inputs of `copied`, which has the same inputs as `model` or fewer, among `inputs` for `model`."""
    if len(copied.inputs) == len(model.inputs) or len(keras.tree.flatten(inputs)) != len(model.inputs):
        return inputs
    by_name = dict(zip((tensor.name for tensor in model.inputs), flat_inputs(model, inputs), strict=True))
    selected = [by_name[tensor.name] for tensor in copied.inputs]
    return selected if len(selected) > 1 else selected[0]


def random_inputs(model: keras.Model, pixels: bool, examples: int = 2) -> Iterator[Any]:
    """Random inputs for a model, in its structure; of several sizes if sizes are unknown.

    Args:
        model: a functional model.
        pixels: uniform from 0 to 255; else standard normal. Integers are always 0 and 1.
        examples: number of examples.
    """
    has_unknown_size = any(size is None for tensor in model.inputs for size in tensor.shape[1:])
    for size in _SIZES if has_unknown_size else _SIZES[:1]:
        rng = np.random.default_rng(0)
        arrays = []
        for tensor in model.inputs:
            shape = (examples, *(n or size for n in tensor.shape[1:]))
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            if dtype == "string":
                arrays.append(np.full(shape, "a"))
            elif "float" not in dtype:
                arrays.append(rng.integers(0, 2, shape).astype(dtype))
            else:
                values = rng.uniform(0, 255, shape) if pixels else rng.normal(size=shape)
                arrays.append(keras.ops.cast(values, dtype))
        yield keras.tree.pack_sequence_as(model._inputs_struct, arrays)
