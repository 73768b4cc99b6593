"""Population statistics: a batch norm's moving averages, recomputed on data."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead import graph
from bnhead.errors import UsageError, nearest
from bnhead.graph.inputs import batches, check_data
from bnhead.graph.rewrite import Flat
from bnhead.layers.controls import FrozenCentering, FrozenScaling
from bnhead.layers.moments import PooledMoments, affine, broadcast_mask, moments, standardize
from bnhead.layers.plain import vanishes
from bnhead.layers.variants import FrozenBatchNormalization

SELECTIONS = ("all", "head", "frozen")


def recompute_batch_stats(
    model: keras.Model, data: Any, layers: str | Iterable[str] = "all", *, batch_size: int = 256
) -> list[str]:
    """Replaces the moving averages of batch norms by the mean and variance over all of `data`.

    Moving averages cover the last few steps, and in a short run their initial values: after n steps with
    momentum m these have weight m^n. Here every example counts once. In one pass each selected norm
    normalises by the statistics of its batch, as in training; all other layers (dropout, other norms) run in
    inference mode. The moments of the batches are pooled to the mean and biased variance of all values. A
    norm without a selected norm before it gets exactly the statistics of its inputs in inference. For
    "frozen" norms every norm that averages in training normalises by the batch, as it will in training.

    Args:
        model: a functional model. Only its moving averages change.
        data: inputs: an array, a tuple `(x, y)` whose x is used, or a batched `tf.data.Dataset` of x or of
            such tuples. Large batches, as in training or larger, are better.
        layers: "all" norms that average in training, those in the "head" (named `head_...`), the "frozen"
            ones (`FrozenBatchNormalization`, `FrozenCentering`, `FrozenScaling`), names, or paths such as
            `"encoder/bn"`. "all" excludes frozen and non-trainable norms, since the model was trained with
            their statistics.
        batch_size: inputs per batch if `data` is arrays.

    Returns:
        The names of the updated layers, in the model's order; paths if nested models share a name.

    Raises:
        UsageError: a name that is not a batch norm's, empty data, inputs or statistics that are not finite.
            The model does not change.

    Reference: Wu & Johnson 2021, arXiv 2105.07576, section 3 ("PreciseBN").
    """
    flat = graph.flattened(model)
    totals = _population(flat, data, layers, batch_size)
    for name, total in totals.items():
        flat.originals[name].moving_mean.assign(total.mean)
        flat.originals[name].moving_variance.assign(total.squares / total.count)
    return [flat.original_name(name) for name in totals]


def population_stats(
    model: keras.Model, data: Any, layers: str | Iterable[str] = "all", *, batch_size: int = 256
) -> dict[str, PooledMoments]:
    """The statistics that `recompute_batch_stats` would assign, without changing the model.

    Args:
        model, data, layers, batch_size: as for `recompute_batch_stats`.

    Returns:
        Name of each norm, as `recompute_batch_stats` returns it, in the model's order -> its moments.

    Raises:
        UsageError: as `recompute_batch_stats`.
    """
    flat = graph.flattened(model)
    totals = _population(flat, data, layers, batch_size)
    return {flat.original_name(name): total for name, total in totals.items()}


def _population(
    flat: Flat, data: Any, layers: str | Iterable[str], batch_size: int
) -> dict[str, PooledMoments]:
    """Name in the flat model of each selected norm -> the moments of its input."""
    check_data(data, batch_size)
    names = _select_norms(flat, layers)
    if not names:
        return {}
    totals = {name: PooledMoments() for name in names}
    normalising = [*names, *_select_norms(flat, "all")] if layers == "frozen" else names
    measuring, select = _measuring_model(flat.model, names, normalising)
    for inputs, _ in batches(data, batch_size):
        arrays = list(map(np.asarray, keras.tree.flatten(inputs)))
        # the inputs are checked too, since TensorFlow's fused kernels can turn NaN into 0
        if any(np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all() for array in arrays):
            raise UsageError("data: inputs are not all finite, so batch statistics of them mean nothing")
        if not len(arrays[0]):
            continue
        with np.errstate(all="ignore"):  # statistics that are not finite raise an error below
            for name, (mean, variance, count) in measuring.predict_on_batch(select(inputs)).items():
                totals[name].add(np.asarray(mean), np.asarray(variance), float(np.asarray(count)))
    for name, total in totals.items():
        if not total.count:
            raise UsageError("data holds no examples to recompute batch statistics on")
        if not np.isfinite(total.mean).all() or not np.isfinite(total.squares).all():
            raise UsageError(f"data: the statistics that reach layer {name!r} are not finite")
    return totals


@contextlib.contextmanager
def population_statistics(
    model: keras.Model, data: Any, layers: str | Iterable[str] = "all", *, batch_size: int = 256
) -> Iterator[list[str]]:
    """Inside, the norms have the statistics of `data`; at the end, the moving averages they had before.

    Arguments, errors and yielded values are those of `recompute_batch_stats`.
    """
    averages = [v for v in model.non_trainable_variables if v.name in ("moving_mean", "moving_variance")]
    values = [np.array(ops.convert_to_numpy(average)) for average in averages]
    try:
        yield recompute_batch_stats(model, data, layers, batch_size=batch_size)
    finally:
        for average, value in zip(averages, values, strict=True):
            average.assign(value)


def is_frozen(norm: keras.layers.Layer) -> bool:
    """Whether a norm's statistics are measured once, before training."""
    return isinstance(norm, FrozenBatchNormalization | FrozenCentering | FrozenScaling)


def _select_norms(flat: Flat, layers: str | Iterable[str]) -> list[str]:
    """Names, in the flat model, of the norms that `layers` selects."""
    norms = [layer for layer in flat.model.layers if hasattr(layer, "moving_variance")]
    norm_names = [norm.name for norm in norms]
    if layers == "frozen":
        return [norm.name for norm in norms if is_frozen(norm)]
    averaging = [norm.name for norm in norms if norm.trainable and not is_frozen(norm)]
    if layers == "all":
        return averaging
    if layers == "head":
        return [name for name in averaging if flat.originals[name].name.startswith("head_")]
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        if flat.name(name) not in norm_names:
            hint = nearest(name, [*SELECTIONS, *norm_names])
            raise UsageError(f"layers: model {flat.model.name!r} has no batch norm {name!r}{hint}")
    return [flat.name(name) for name in names]


def _measuring_model(
    model: keras.Model, names: list[str], normalising: list[str]
) -> tuple[keras.Model, Callable[[Any], list]]:
    """A model that shares `model`'s layers and returns mean, variance and count at each norm of `names`.

    Args:
        model: a functional model.
        names: names of the norms to measure.
        normalising: names of the norms that normalise by the batch, those of `names` included.

    Returns:
        The measuring model, and a function that selects its inputs from the inputs of `model`, with or
        without labels.
    """
    measured: dict[str, list] = {}

    def perform(operation, *arguments, **keywords):
        if operation.name not in normalising:
            return arguments[0] if vanishes(operation) else operation(*arguments, **keywords)
        outputs, *batch_moments = _BatchMoments(operation)(arguments[0])
        if operation.name in measured:
            raise UsageError(
                f"layers: {operation.name!r} has one set of averages and is called in several places"
            )
        if operation.name in names:
            measured[operation.name] = batch_moments
        return outputs

    inputs = graph.new_inputs(model)
    graph.replay(model, inputs, perform)
    used = set(map(id, keras.tree.flatten(graph.used_inputs(model, inputs, measured))))
    indices = [i for i, tensor in enumerate(inputs) if id(tensor) in used]

    def select(data):
        flat = keras.tree.flatten(data)
        if len(flat) != len(inputs):
            return flat
        flat = graph.flat_inputs(model, data)
        return [flat[i] for i in indices]

    measuring = keras.Model([inputs[i] for i in indices], measured)
    measuring.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
    return measuring, select


class _BatchMoments(keras.layers.Layer):
    """Normalises by the batch as `norm` does in training; also returns mean, variance and count."""

    def __init__(self, norm: keras.layers.Layer):
        super().__init__(dtype=norm.dtype_policy)
        self._norm = norm
        self._axis = getattr(norm, "axis", -1)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        norm, x = self._norm, ops.moveaxis(ops.cast(inputs, "float32"), self._axis, -1)
        mean, variance = moments(x, mask)
        counted = ops.ones_like(x[..., :1]) if mask is None else broadcast_mask(x, mask)
        if hasattr(norm, "normalise"):  # of `bnhead.layers.controls`
            outputs = norm.normalise(x, mean, variance)
        else:
            outputs = affine(standardize(x, mean, variance, norm.epsilon), norm.gamma, norm.beta)
        outputs = ops.cast(ops.moveaxis(outputs, -1, self._axis), self.compute_dtype)
        return outputs, mean, variance, ops.sum(ops.cast(counted, "float32"))
