"""Whether a copy of a model computes what the model computes."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bnhead.errors import CopyError
from bnhead.graph.calls import flat_inputs, functional
from bnhead.texts import one_line

_SIZES = (64, 32, 224, 8)  # tried in turn where a model takes images of any size
_TOLERANCE = {"float16": 0.1, "bfloat16": 0.1}
# TensorFloat-32 keeps 10 bits, and a fold rounds in other places. Lost state changes outputs by far more.
_FLOAT32_TOLERANCE = 1e-2


def require_agreement(
    model: keras.Model, copied: keras.Model, data: Any = None, *, name: str = "a copy"
) -> None:
    """Compares a copy's outputs in inference with the model's, before the copy is handed out.

    Outputs that are not finite, or that differ from call to call (Monte Carlo dropout), cannot be compared.

    Args:
        model: a functional model.
        copied: has the same outputs, and the same inputs or fewer.
        data: a few inputs of `model`; None makes some up. A model that takes none of these is not compared,
            and a warning says so.
        name: what the message calls the copy.

    Raises:
        CopyError: they differ by more than rounding can, or the copy does not run where the model does.
    """
    model = functional(model)
    trials = [[data]] if data is not None else [made_up(model, pixels) for pixels in (False, True)]
    differences = [_first_difference(model, copied, inputs, name) for inputs in trials]
    dtypes = {layer.compute_dtype for layer in model._flatten_layers() if layer.weights}
    tolerance = max(_TOLERANCE.get(dtype, _FLOAT32_TOLERANCE) for dtype in {*dtypes, "float32"})
    for difference in differences:
        if difference is not None and not difference <= tolerance:
            raise CopyError(
                f"{name} of model {model.name!r} differs from it by {difference:.2g} of its largest output: "
                "a layer holds state that is neither in its config nor in what it saves"
            )


def _first_difference(
    model: keras.Model, copied: keras.Model, trials: Iterable[Any], name: str
) -> float | None:
    """`relative_difference` for the first inputs that the model takes."""
    for inputs in trials:
        try:
            expected = outputs(model, inputs)
        except Exception as error:  # whatever a layer raises for inputs that it does not take
            refusal = one_line(str(error))[:200]
            continue
        try:
            return relative_difference(model, copied, inputs, expected)
        except Exception as error:
            raise CopyError(
                f"{name} of model {model.name!r} does not run: {one_line(str(error))[:200]}"
            ) from error
    warnings.warn(f"the copy of model {model.name!r} is not compared with it: {refusal}", stacklevel=4)
    return None


def relative_difference(
    model: keras.Model, copied: keras.Model, inputs: Any, expected: list[np.ndarray] | None = None
) -> float | None:
    """Largest absolute difference of an output, divided by the largest absolute output where that is not 0.

    None where an output of `model` is not finite, or differs between two calls. `expected` is the model's
    outputs, where they are known.
    """
    expected = outputs(model, inputs) if expected is None else expected
    got = outputs(copied, inputs_of(model, copied, inputs))
    largest = max(np.abs(array).max(initial=0) for array in expected)
    pairs = zip(expected, got, strict=True)
    difference = float(max(np.abs(a - b).max(initial=0) for a, b in pairs) / (largest or 1))
    if difference == 0:
        return difference
    again = outputs(model, inputs)
    return difference if all(map(np.array_equal, expected, again)) else None  # NaN is not equal to itself


def outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    """A model's outputs in inference, float64; nothing in the model changes.

    Random numbers are the same in every call and model, so that also what is random in inference compares.
    """
    generators = [g for layer in model._flatten_layers() for g in layer._seed_generators]
    states = [(g.state, keras.ops.zeros_like(g.state)) for g in generators]
    inputs = keras.tree.map_structure(lambda x: None if x is None else keras.ops.convert_to_tensor(x), inputs)
    with keras.StatelessScope(state_mapping=states):
        results = model(inputs, training=False)
    return [np.asarray(keras.ops.convert_to_numpy(x), "float64") for x in keras.tree.flatten(results)]


def inputs_of(model: keras.Model, copied: keras.Model, data: Any) -> Any:
    """What `copied`, which has some of `model`'s inputs, takes of inputs for `model`."""
    if len(copied.inputs) == len(model.inputs) or len(keras.tree.flatten(data)) != len(model.inputs):
        return data
    names = [tensor.name for tensor in model.inputs]
    flat = flat_inputs(model, data)
    chosen = [flat[names.index(tensor.name)] for tensor in copied.inputs]
    return chosen if len(chosen) > 1 else chosen[0]


def made_up(model: keras.Model, pixels: bool, examples: int = 2) -> Iterator[Any]:
    """Inputs for a model, in the structure it takes; where sizes are free, in several sizes.

    Args:
        model: a functional model.
        pixels: uniform from 0 to 255; else standard normal. Whole numbers are 0 and 1 in any case.
        examples: of each size.
    """
    free = any(size is None for tensor in model.inputs for size in tensor.shape[1:])
    for size in _SIZES if free else _SIZES[:1]:
        rng = np.random.default_rng(0)
        shapes = [(examples, *(n or size for n in tensor.shape[1:])) for tensor in model.inputs]
        arrays = [_values(rng, pixels, *each) for each in zip(model.inputs, shapes, strict=True)]
        yield keras.tree.pack_sequence_as(model._inputs_struct, arrays)


def _values(rng: np.random.Generator, pixels: bool, tensor: keras.KerasTensor, shape: tuple[int, ...]):
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return np.full(shape, "a")
    if "float" not in dtype:
        return rng.integers(0, 2, shape).astype(dtype)
    return keras.ops.cast(rng.uniform(0, 255, shape) if pixels else rng.normal(size=shape), dtype)
