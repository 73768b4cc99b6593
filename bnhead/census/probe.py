"""The streaming pass: a model's activations are reduced inside the compiled graph, batch by batch."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import gradients, reductions
from bnhead.census.counters import Census, Counts, Moments
from bnhead.census.find import NORM, OTHER, RECTIFIER, Site, find, watched, without_activation
from bnhead.errors import UsageError
from bnhead.graph import flat_inputs, functional, run
from bnhead.inputs import batches, check_data, class_numbers

BY = ("output", "slope")


class Probe:
    """Counts the units of a model's layers, in one compiled pass over a set of inputs.

    The model's own layers run, in evaluation mode, so a probe built once sees the weights as they are
    whenever it counts. What leaves the graph is, per batch and layer, a few numbers per input and per unit.
    Under `tf.distribute` it runs on one replica, whose weights are those of all.

    Args:
        model: a built functional or Sequential model.
        layers: None for the last activation before the output, "all" for every activation, "norms" for every
            batch norm, or a sequence of names and layers; see `bnhead.census.find`. A layer that is called
            several times is counted once for each call: `relu`, `relu#2`, ...
        eps: a unit is silent where its absolute output is at most this.
        by: "output" compares |a| with `eps`; "slope" compares the activation's slope |da/dz|, which makes a
            LeakyReLU of slope 0.2 silent on its negative side for eps = 0.2.
        gradients: whether to count gradient-dead units, by the loss the model was compiled with; this takes a
            backward pass, labels, and batches whose inputs do not see each other, as in evaluation mode.
        together: whether to count co-death: memory of the order of units squared.
        classes: number of classes of the labels; None for the size of the model's output. Labels that are no
            classes are not counted by class: regression targets, or numbers beyond that size.

    Raises:
        UsageError: a subclassed model, a layer the model does not have, or one without a single output.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[Any] | str | None = None,
        *,
        eps: float = 0.0,
        by: str = "output",
        gradients: bool = False,
        together: bool = False,
        classes: int | None = None,
    ):
        if not eps >= 0:
            raise UsageError(f"eps must be at least 0, got {eps}")
        if by not in BY:
            raise UsageError(f"by must be 'output' or 'slope', got {by!r}")
        self.sites = find(model, layers)
        if gradients and not getattr(model, "compiled", False):
            raise UsageError("gradient-dead units need the loss of a compiled model")
        self._model = model
        self._classes = _classes(model) if classes is None else classes
        self._classes_given = classes is not None
        self._reduce = _Reduce(model, self.sites, eps, by, gradients, together, self._classes)
        self._run = _compiled(self._reduce)

    @property
    def layers(self) -> list[keras.Operation]:
        """The layers and operations that are counted."""
        return [site.operation for site in self.sites]

    def count(self, data: Any, *, batch_size: int = 256) -> Census:
        """Counts on all of `data`, the last partial batch included.

        Args:
            data: inputs as an array, a list or dict of arrays for a model of several inputs, a tuple
                `(x, y)`, or a batched `tf.data.Dataset` of x or of such tuples. Labels are whole
                numbers or one-hot.
            batch_size: inputs at a time, where `data` is arrays.

        Raises:
            UsageError: data that cannot be read, or labels that are not below the `classes` that were given.
        """
        check_data(data, batch_size)
        census = Census({site.name: Counts.empty(site.units) for site in self.sites})
        first = 0
        for x, y in batches(data, batch_size):
            flat = flat_inputs(self._model, x)
            numbers = self._class_numbers(y)
            if self._reduce.gradients and y is None:
                raise UsageError("gradient-dead units need labels: data must be (x, y)")
            found = _to_numpy(self._run(flat, numbers, y if self._reduce.gradients else None))
            batch = self._counts(found, numbers, first)
            first += next(iter(batch.layers.values())).inputs
            census = census.merge(batch)
        bad = _bad_weight(self._model)
        for counts in census.layers.values():
            counts.bad_weights = bad
        return census

    def _class_numbers(self, y: Any) -> np.ndarray | None:
        """The batch's classes; None where a number of classes that nobody gave does not fit the labels."""
        try:
            return class_numbers(y, self._classes)
        except UsageError:
            if self._classes_given:
                raise
            return None

    def _counts(self, found: dict[str, Any], numbers: np.ndarray | None, first: int) -> Census:
        """One batch's census from what came out of the graph."""
        census = Census()
        for site in self.sites:
            arrays = found[site.name]
            optional = {
                name: arrays.get(name) for name in ("magnitude", "gradient", "together", "class_active")
            }
            optional = {name: _whole(name, array) for name, array in optional.items() if array is not None}
            counts = Counts.of_batch(
                *(arrays[name] for name in ("silent", "active", "saturated", "switches")),
                first=first,
                groups=site.groups,
                **optional,
            )
            if "class_active" in optional:
                counts.class_inputs = np.bincount(numbers, minlength=self._classes).astype(np.int64)
            if "deviation" in arrays:
                values = counts.inputs * _size(arrays["positions"])
                mean = arrays["first"].astype(np.float64) + arrays["mean"]
                counts.moments = Moments(values, mean, arrays["deviation"].astype(np.float64))
            self._void(counts, site, found["finite"])
            census.layers[site.name] = counts
        return census

    def _void(self, counts: Counts, site: Site, found: np.ndarray) -> None:
        """Notes on which inputs a value up to the site was not finite, and where."""
        upto = self._reduce.watched.index(site.name) + 1
        bad = ~found[:, :upto]
        rows = bad.any(1)
        if rows.any():
            row = int(np.argmax(rows))
            counts.nonfinite = int(rows.sum())
            counts.first_nonfinite = counts.first + row
            counts.nonfinite_at = self._reduce.watched[int(np.argmax(bad[row]))]


def count(
    model: keras.Model,
    data: Any,
    layers: Sequence[Any] | str | None = None,
    *,
    batch_size: int = 256,
    **options: Any,
) -> Census:
    """Counts the units of `model`'s layers on `data`, in evaluation mode.

    `options`, the other arguments and the errors are those of `Probe` and `Probe.count`.
    """
    return Probe(model, layers, **options).count(data, batch_size=batch_size)


class _Reduce(keras.layers.Layer):
    """Runs the model on a batch and reduces what it counts.

    Attributes:
        watched: names of the inputs and sites whose values must be finite, in the order in which they run:
            the model's inputs, every rectifier (which may turn NaN into silence) and every counted site.
    """

    def __init__(self, model, counted, eps, by, gradients, together, classes):
        super().__init__(autocast=False, name="census")
        self.inner = model
        self.counted = {site.name: site for site in counted}
        self.eps, self.by = eps, by
        self.gradients, self.together, self.classes = gradients, together, classes
        self.stops = {site.name: site for site in watched(model, counted)}
        inputs = [f"input {tensor.name!r}" for tensor in functional(model).inputs]
        self.watched = [*inputs, *self.stops]
        self.built = True

    def call(self, inputs, numbers=None, y=None):
        one_hot = None if numbers is None else ops.one_hot(numbers, self.classes, dtype="float32")
        found: dict[str, Any] = {}
        finite = [_finite_or_absent(tensor, inputs) for tensor in inputs]
        by_name: dict[str, Any] = {}

        def forward(watch, reduce=False):
            before: dict[str, Any] = {}
            outputs = run(
                self.inner, inputs, lambda *call: self._stop(*call, watch, before, found_or(reduce))
            )
            return before, outputs

        def found_or(reduce):
            return (found, by_name, one_hot) if reduce else None

        forward(lambda name, tensor: tensor, reduce=True)
        if self.gradients:
            for name, gradient in gradients.sensitivities(self._loss(forward, y)).items():
                if name in self.counted:
                    axes = tuple(range(len(gradient.shape) - 1))
                    found[name]["gradient"] = ops.sum(ops.abs(ops.cast(gradient, "float32")), axes)
        stops = [by_name[name] for name in self.watched[len(inputs) :]]
        return {**found, "finite": ops.stack([*finite, *stops], axis=1)}

    def _loss(self, forward, y):
        def loss(watch):
            before, outputs = forward(watch)
            structure = functional(self.inner)._outputs_struct
            outputs = keras.tree.pack_sequence_as(structure, outputs)
            return before, self.inner._compile_loss(y, outputs)

        return loss

    def _stop(self, name, operation, arguments, compute, watch, taps, into):
        """Runs one call, and at a site reads its pre-activation and its output."""
        site = self.stops.get(name)
        if site is None:
            return compute()
        before, function = arguments[0] if arguments else None, compute
        if site.fused:
            with without_activation(operation) as function:
                before = compute()
        tapped = site.fused or (site.kind != OTHER and _is_tensor(before))
        if tapped:
            before = watch(name, before)
            if name in self.counted:
                taps[name] = before
            after = function(before)
        else:
            after = compute()
            if name in self.counted:
                taps[name] = after = watch(name, after)
        if into:
            self._reduce(site, before if tapped else after, after, function, *into)
        return after

    def _reduce(self, site, before, after, function, found, by_name, one_hot):
        finite = reductions.finite(before)
        if site.name not in self.counted:
            by_name[site.name] = finite
            return
        if site.kind == RECTIFIER and self.by == "output":
            somewhere, everywhere = reductions.active_of_rectifier(before, self.eps)
        else:
            finite = ops.logical_and(finite, reductions.finite(after))
            by_slope = self.by == "slope" and before is not after
            size = reductions.slope(function, before) if by_slope else ops.abs(after)
            somewhere, everywhere = reductions.active_of_size(size, self.eps)
        by_name[site.name] = finite
        arrays = reductions.silence(somewhere, everywhere)
        arrays["magnitude"] = reductions.magnitude(after)
        if site.kind == NORM or not site.positions:
            arrays |= reductions.moments(after)
            arrays["positions"] = ops.shape(after)[1:-1]
        if one_hot is not None:
            arrays["class_active"] = reductions.by_class(somewhere, one_hot)
        if self.together:
            arrays["together"] = reductions.together(somewhere)
        found[site.name] = arrays


def _finite_or_absent(tensor: Any, inputs: Sequence[Any]) -> Any:
    there = next(x for x in inputs if x is not None)
    if tensor is None or not keras.backend.is_float_dtype(tensor.dtype):
        return ops.ones(ops.shape(there)[:1], dtype="bool")
    return reductions.finite(tensor)


def _is_tensor(value: Any) -> bool:
    return keras.ops.is_tensor(value)


def _classes(model: keras.Model) -> int:
    """Number of classes a model tells apart by its output: 2 for a single logit, 0 for several outputs."""
    outputs = functional(model).outputs if functional(model) else []
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or not outputs[0].shape[-1]:
        return 0
    return max(2, outputs[0].shape[-1])


def _bad_weight(model: keras.Model) -> str:
    for variable in model.weights:
        if keras.backend.is_float_dtype(variable.dtype):
            values = np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
            if not np.isfinite(values).all():
                return variable.path
    return ""


def _compiled(layer: _Reduce) -> Callable:
    """`layer(inputs, numbers, y)` in evaluation mode, compiled where the backend does that."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # relaxed shapes: the last, smaller batch of a pass is not traced anew every time
        return tf.function(lambda x, n, y: layer(x, n, y, training=False), reduce_retracing=True)
    if backend == "jax":
        import jax

        @jax.jit
        def stateless(trainable, fixed, x, n, y):
            variables = [*layer.trainable_variables, *layer.non_trainable_variables]
            mapping = zip(variables, [*trainable, *fixed], strict=True)
            with keras.StatelessScope(state_mapping=list(mapping)):
                return layer(x, n, y, training=False)

        def pass_on(x, n, y):
            variables = [
                [v.value for v in vs] for vs in (layer.trainable_variables, layer.non_trainable_variables)
            ]
            return stateless(*variables, x, n, y)

        return pass_on
    import torch

    def without_gradients(x, n, y):
        with torch.no_grad():
            return layer(x, n, y, training=False)

    return without_gradients


def _to_numpy(found: Any) -> Any:
    return keras.tree.map_structure(lambda tensor: np.asarray(keras.ops.convert_to_numpy(tensor)), found)


def _whole(name: str, array: np.ndarray) -> np.ndarray:
    """Counts come out of matrix products as floats, exact up to 2**24 inputs a batch."""
    return (
        np.rint(array).astype(np.int64) if name in ("together", "class_active") else array.astype(np.float64)
    )


def _size(shape: np.ndarray) -> int:
    return int(np.prod(shape))
