"""Population statistics: a batch norm's moving averages, measured on data instead of averaged on the way."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead import graph
from bnhead.errors import UsageError, nearest
from bnhead.graph.inputs import batches, check_data
from bnhead.layers.moments import broadcast_mask, moments
from bnhead.layers.plain import vanishes
from bnhead.layers.variants import FrozenBatchNormalization

WHICH = ("all", "head", "frozen")


def recompute_batch_stats(
    model: keras.Model, data: Any, layers: str | Iterable[str] = "all", *, batch_size: int = 256
) -> list[str]:
    """Replaces batch norms' moving averages by the mean and variance of all of `data`.

    Moving averages remember the last few steps, and in a short run the values they started with: with a
    momentum of m, m^steps of them. Here every example counts once. In one pass each chosen norm normalises by
    its batch's statistics, as in training, all else (dropout, other norms) runs in inference mode, and the
    batches' moments are pooled: the mean over all values, and their biased variance around it. A norm that no
    other chosen norm comes before gets exactly the statistics that inference will meet. For the "frozen" ones
    every norm that averages in training normalises by the batch, as it will while they are trained with.

    Args:
        model: a functional model whose moving averages are changed; nothing else of it is.
        data: inputs: an array, a tuple `(x, y)` whose x is used, or a batched `tf.data.Dataset` of x or of
            such tuples. Large batches, as in training or larger, are better.
        layers: "all" norms that average in training, those of the "head" among them (named `head_...`), the
            "frozen" ones (`FrozenBatchNormalization`), names, or paths such as `"encoder/bn"`. A norm that is
            frozen or not trainable has been trained with the statistics it has, and "all" leaves them to it.
        batch_size: inputs at a time, where `data` is arrays.

    Returns:
        The names of the layers that were given new statistics, in the model's order; paths where nested
        models have several of one name.

    Raises:
        UsageError: a name that is no batch norm's, data without a single example, inputs or statistics that
            are not finite. The model is left as it was.

    Reference: Wu & Johnson 2021, arXiv 2105.07576, section 3 ("PreciseBN").
    """
    check_data(data, batch_size)
    flat = graph.flattened(model)
    chosen = _chosen(flat, layers)
    if not chosen:
        return []
    totals = {name: _Moments() for name in chosen}
    normalising = [*chosen, *_chosen(flat, "all")] if layers == "frozen" else chosen
    measure, read = _measuring(flat.model, chosen, normalising)
    for inputs, _ in batches(data, batch_size):
        if not _check_finite(inputs):
            continue
        with np.errstate(all="ignore"):  # what is not finite is said below
            for name, (mean, variance, count) in measure.predict_on_batch(read(inputs)).items():
                totals[name].add(np.asarray(mean), np.asarray(variance), float(np.asarray(count)))
    for name, total in totals.items():
        if not total.count:
            raise UsageError("data holds no examples to recompute batch statistics on")
        if not np.isfinite(total.mean).all() or not np.isfinite(total.squares).all():
            raise UsageError(f"data: the statistics that reach layer {name!r} are not finite")
    for name, total in totals.items():
        flat.originals[name].moving_mean.assign(total.mean)
        flat.originals[name].moving_variance.assign(total.squares / total.count)
    return [name if flat.originals[name].name == name else flat.paths[name] for name in chosen]


def _check_finite(inputs: Any) -> int:
    """The inputs themselves: TensorFlow's fused kernels on the way can turn NaN into 0. Returns how many."""
    arrays = list(map(np.asarray, keras.tree.flatten(inputs)))
    for array in arrays:
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise UsageError("data: inputs are not all finite, so batch statistics of them mean nothing")
    return len(arrays[0])


def _chosen(flat: graph.Flat, layers: str | Iterable[str]) -> list[str]:
    """Names, in the flat model, of the norms that `layers` stands for."""
    norms = [layer for layer in flat.model.layers if hasattr(layer, "moving_variance")]
    known = [norm.name for norm in norms]
    if layers == "frozen":
        return [norm.name for norm in norms if isinstance(norm, FrozenBatchNormalization)]
    averaging = [n.name for n in norms if n.trainable and not isinstance(n, FrozenBatchNormalization)]
    if layers == "all":
        return averaging
    if layers == "head":
        return [name for name in averaging if flat.originals[name].name.startswith("head_")]
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        if flat.name(name) not in known:
            hint = nearest(name, [*WHICH, *known])
            raise UsageError(f"layers: model {flat.model.name!r} has no batch norm {name!r}{hint}")
    return [flat.name(name) for name in names]


class _Moments:
    """Pooled mean and sum of squares around it, in float64 (Chan et al. 1979, equation 2.1)."""

    def __init__(self):
        self.count = 0.0
        self.mean = self.squares = 0.0

    def add(self, mean: np.ndarray, variance: np.ndarray, count: float) -> None:
        apart = mean.astype("float64") - self.mean
        total = self.count + count
        self.squares = self.squares + variance.astype("float64") * count
        self.squares = self.squares + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


def _measuring(
    model: keras.Model, chosen: list[str], normalising: list[str]
) -> tuple[keras.Model, Callable[[Any], list]]:
    """A model that shares `model`'s layers and returns mean, variance and count at each chosen norm.

    The `normalising` ones, the chosen among them, normalise by the batch. Beside it the function that takes
    what the model reads out of what `model` would be given, or of the same without labels.
    """
    measured: dict[str, list] = {}

    def perform(operation, *arguments, **keywords):
        if operation.name not in normalising:
            return arguments[0] if vanishes(operation) else operation(*arguments, **keywords)
        outputs, *moments = _BatchMoments(operation)(arguments[0])
        if operation.name not in chosen:
            return outputs
        if operation.name in measured:
            raise UsageError(
                f"layers: {operation.name!r} has one set of averages and is called in several places"
            )
        measured[operation.name] = moments
        return outputs

    inputs = graph.new_inputs(model)
    graph.replay(model, inputs, perform)
    used = keras.tree.flatten(graph.used_inputs(model, inputs, measured))
    places = [i for i, tensor in enumerate(inputs) if any(tensor is other for other in used)]

    def read(data):
        flat = keras.tree.flatten(data)
        if len(flat) == len(inputs):
            flat = graph.flat_inputs(model, data)
            return [flat[i] for i in places]
        return flat

    measuring = keras.Model([inputs[i] for i in places], measured)
    measuring.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
    return measuring, read


class _BatchMoments(keras.layers.Layer):
    """Normalises by the batch as `norm` does in training; returns mean, variance and number of values too."""

    def __init__(self, norm: keras.layers.Layer):
        super().__init__(dtype=norm.dtype_policy)
        self._norm = norm
        self._axis = getattr(norm, "axis", -1)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        x = ops.moveaxis(ops.cast(inputs, "float32"), self._axis, -1)
        mean, variance = moments(x, mask)
        count = ops.sum(
            ops.cast(ops.ones_like(x[..., :1]) if mask is None else broadcast_mask(x, mask), "float32")
        )
        outputs = ops.moveaxis(normalise(self._norm, x, mean, variance), -1, self._axis)
        return ops.cast(outputs, self.compute_dtype), mean, variance, count


def normalise(norm: keras.layers.Layer, x, mean, variance):
    """`x`, channels last, normalised by these moments in the way of a batch norm or a part of one."""
    if hasattr(norm, "normalise"):
        return norm.normalise(x, mean, variance)
    z = (x - mean) * ops.rsqrt(variance + norm.epsilon)
    z = z * ops.cast(norm.gamma, z.dtype) if norm.scale else z
    return z + ops.cast(norm.beta, z.dtype) if norm.center else z
