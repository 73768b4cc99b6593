"""The streaming pass: a model's activations are reduced inside the compiled graph, batch by batch."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import gradients, totals
from bnhead.census.counts import Census
from bnhead.census.labels import Labels
from bnhead.census.sites import Inventory, Site
from bnhead.errors import UsageError
from bnhead.graph import flat_inputs, functional, taps, trace
from bnhead.graph.inputs import arrays_of, batches, check_data

BY = ("output", "slope")


class Probe:
    """Counts the units of a model's layers, in one compiled pass over a set of inputs.

    The model runs as `predict` runs it, in evaluation mode, and nothing in it changes: neither moving
    statistics nor seed generators nor recurrent states. A probe built once sees the weights as they are
    whenever it counts. The totals stay on the device until the pass is over. Under `tf.distribute` it runs on
    one replica, whose weights are those of all. On PyTorch the counted layers' activations of one batch are
    held in memory, as in a training step.

    Args:
        model: any built Keras model.
        layers: None for the last activation before the output, "all" for every activation, "norms" for every
            batch norm, or a sequence of names and layers; see `bnhead.census.sites`. A layer that is called
            several times is counted once for each call: `relu`, `relu#2`, ...
        eps: a unit is silent where its absolute output is at most this.
        by: "output" compares |a| with `eps`; "slope" compares the activation's slope |da/dz|, which makes a
            LeakyReLU of slope 0.2 silent on its negative side for eps = 0.2.
        gradients: whether to count gradient-dead units, by the loss the model was compiled with; this takes a
            backward pass, labels, and batches whose inputs do not see each other, as in evaluation mode.
        together: whether to count co-death: memory of the order of units squared.
        classes: number of classes of the labels; None for the size of the model's output. Labels that are no
            classes are not counted by class, and the census says so: regression targets, or numbers beyond
            that size.

    Raises:
        UsageError: a model that is not built, a layer the model does not have, or one without units. Where
            the model's inputs are not known (a subclassed model), `prepare` or `count` says so.
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
        if gradients and not getattr(model, "compiled", False):
            raise UsageError("gradient-dead units need the loss of a compiled model")
        trace.require_built(model)
        self._model, self._layers, self._classes = model, layers, classes
        self._gradients = gradients
        self._options = {"eps": eps, "by_slope": by == "slope", "together": together}
        self._found: Inventory | None = None
        self._plan: totals.Plan | None = None
        self._passes: dict[Labels, tuple[Callable, Callable]] = {}
        if (inputs := trace.specs(model)) is not None:
            self._find(inputs)

    @property
    def sites(self) -> list[Site]:
        """What is counted; empty until the first batch where the model's inputs are not known before."""
        return [] if self._plan is None else self._plan.sites

    @property
    def layers(self) -> list[keras.Operation | None]:
        """The layers and operations that are counted."""
        return [site.layer for site in self.sites]

    def prepare(self, data: Any, batch_size: int = 256) -> None:
        """Finds the layers, and looks at labels that are at hand, before anything is counted.

        Args:
            data: as for `count`. Batches are not read, so that what counts them later sees all of them.
            batch_size: as for `count`.

        Raises:
            UsageError: as for `count`.
        """
        arrays = arrays_of(data)
        if arrays is not None:
            if self._plan is None:
                self._find(self._arranged(next(batches(data, self._batch_size(batch_size)))[0]))
            self._labels_of(arrays[1])
        elif self._plan is None and hasattr(data, "element_spec"):
            x = keras.utils.unpack_x_y_sample_weight(data.element_spec)[0]
            if (inputs := trace.abstract(x)) is not None:
                self._find(inputs)

    def count(self, data: Any, *, batch_size: int = 256) -> Census:
        """Counts on all of `data`, the last partial batch included.

        Args:
            data: inputs as an array, a list or dict of arrays for a model of several inputs, a tuple
                `(x, y)`, or batches of x or of such tuples: a `tf.data.Dataset`, a `PyDataset`, a
                `DataLoader`, an iterator that ends. Labels are whole numbers or one-hot.
            batch_size: inputs at a time, where `data` is arrays.

        Raises:
            UsageError: data that cannot be read or does not fit the model, or arrays of labels that are not
                below the `classes` that were given.
        """
        check_data(data, batch_size)
        arrays = arrays_of(data)
        total: totals.Totals | None = None
        for x, y in batches(data, self._batch_size(batch_size)):
            x = self._arranged(x)
            if self._gradients and y is None:
                raise UsageError("gradient-dead units need labels: data must be (x, y)")
            if total is None:
                if self._plan is None:
                    self._find(x)
                labels = self._labels_of(y, stream=True) if arrays is None else self._labels_of(arrays[1])
                run, add, layouts = self._compiled(labels)
                total = totals.Totals(self._plan, *layouts, add)
            total.add(run(x, y if labels.form or self._gradients else None))
        if total is None:
            raise UsageError("data must have at least one batch of inputs")
        census = totals.census_of(self._plan, labels, total.read())
        return self._described(census, labels)

    def _described(self, census: Census, labels: Labels) -> Census:
        """Adds what was not looked at, what was decided, and a weight that is not finite."""
        census.not_looked_at = dict(self._found.missed)
        if labels.note:
            census.notes.insert(0, labels.note)
        if self._options["by_slope"] and (smooth := self._without_slope(self._found.select(self._layers))):
            census.not_looked_at |= {site.name: "an output, which has no slope" for site in smooth}
        if getattr(getattr(self._model, "optimizer", None), "use_ema", False):
            census.notes.append(
                "weights: those that the model has now; use_ema puts their averages in place when fit ends"
            )
        bad = _bad_weight(self._model)
        for counts in census.layers.values():
            counts.bad_weights = bad
        return census

    def _find(self, inputs: Any) -> None:
        self._found = Inventory.of(self._model, trace.forward(self._model, inputs))
        sites = self._found.select(self._layers)
        if self._options["by_slope"]:
            smooth = self._without_slope(sites)
            if not (sites := [site for site in sites if site not in smooth]):
                raise UsageError(
                    f"by='slope' needs an activation; {smooth[0].name!r} is counted at its output"
                )
        self._plan = totals.Plan.of(self._found, sites, input_names(self._model), **self._options)

    @staticmethod
    def _without_slope(sites: Sequence[Site]) -> list[Site]:
        return [site for site in sites if site.key[2]]

    def _labels_of(self, y: Any, stream: bool = False) -> Labels:
        classes = self._classes
        if classes is None:
            classes = 0 if self._found is None else self._found.classes
        return Labels.of(y, classes, given=self._classes is not None and not stream)

    def _batch_size(self, batch_size: int) -> int:
        """The model's own batch size where it has one, as a stateful model does."""
        graph = functional(self._model)
        sizes = {tensor.shape[0] for tensor in getattr(graph, "inputs", None) or ()} - {None}
        return sizes.pop() if len(sizes) == 1 else batch_size

    def _arranged(self, x: Any) -> Any:
        """A batch's inputs in the structure that the model takes.

        Raises:
            UsageError: inputs of another number or rank, or of another batch size than the model's own.
        """
        graph = functional(self._model)
        if graph is None:
            return keras.tree.map_structure(
                lambda leaf: leaf if leaf is None else ops.convert_to_tensor(leaf), x
            )
        given, taken = keras.tree.flatten(x), graph.inputs
        if len(given) != len(taken) and not isinstance(x, dict):
            raise UsageError(f"data must have the {len(taken)} inputs of the model, got {len(given)}")
        if len(given) == len(taken) == 1 and len(given[0].shape) == len(taken[0].shape) - 1 > 1:
            raise UsageError(
                f"data must yield batches of shape {_shape(taken[0])}, got {_shape(given[0])}: is it batched?"
            )
        try:
            flat = flat_inputs(self._model, x)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"data does not fit the model: {str(error).splitlines()[0]}") from error
        for tensor, own in zip(flat, taken, strict=True):
            if tensor is None:
                continue
            sizes = zip(tensor.shape[1:], own.shape[1:], strict=False)
            if len(tensor.shape) != len(own.shape) or any(b not in (None, a) for a, b in sizes):
                raise UsageError(
                    f"data does not fit the model: input {own.name!r} is {_shape(own)}, got {_shape(tensor)}"
                )
            if own.shape[0] not in (None, tensor.shape[0]):
                size, rows = own.shape[0], tensor.shape[0]
                raise UsageError(
                    f"data must be whole batches of {size}, the model's own size; one has {rows}"
                )
        return keras.tree.pack_sequence_as(graph._inputs_struct, flat)

    def _compiled(self, labels: Labels) -> tuple[Callable, Callable, tuple[totals.Layout, totals.Layout]]:
        """The pass over a batch and the adding up, built once for labels that are read alike."""
        if labels not in self._passes:
            layouts = totals.Layout(), totals.Layout()

            def batch(x, y):
                return self._reduced(x, y, labels, *layouts)

            add = totals.adding(len(self._plan.places))
            self._passes[labels] = trace.compiled(batch, self._model), add, layouts
        return self._passes[labels]

    def _reduced(
        self, x: Any, y: Any, labels: Labels, whole: totals.Layout, real: totals.Layout
    ) -> dict[str, Any]:
        """What `totals` adds up, of one batch; runs inside the compiled pass."""
        plan = self._plan
        with taps.opened(self._model, evaluating=True, paths=plan.paths) as opened:
            self._model(x, training=False)
        seen = opened.passes[0]
        one_hot = labels.one_hot(ops.convert_to_tensor(y)) if labels.form else None
        numbers = totals.whole_numbers(plan, seen, one_hot)
        large: dict[str, dict[str, Any]] = {}
        for layer, name in [key for key in numbers if key[1] in totals.LARGE]:
            large.setdefault(layer, {})[name] = numbers.pop((layer, name))
        sums, moments = totals.real_numbers(plan, seen)
        if self._gradients:
            sums |= self._gradient_sums(x, y)
        wide = any(keras.backend.standardize_dtype(a.dtype) == "float64" for a in sums.values())
        return {
            "whole": whole.pack(numbers, "int32"),
            "large": large,
            "real": real.pack(sums, "float64" if wide else "float32"),
            "moments": moments,
        }

    def _gradient_sums(self, x: Any, y: Any) -> dict[totals.Key, Any]:
        """Sum over inputs and positions of |dL/dz|, z being a pre-activation or a layer's output."""
        sites = {key: site for site in self._plan.sites for key in site.steps or (site.key,)}

        def forward(watch):
            watched = {}

            def at(key, tensor):
                if key in sites:
                    watched[key] = tensor = watch(key, tensor)
                return tensor

            with taps.opened(self._model, evaluating=True, watch=at, paths=()):
                outputs = self._model(x, training=False)
            return watched, self._model._compile_loss(y, outputs)

        half = any(
            getattr(layer, "compute_dtype", "") == "float16" for layer in self._model._flatten_layers()
        )
        sums: dict[totals.Key, Any] = {}
        for key, size in gradients.magnitudes(forward, half=half).items():
            site = sites[key]
            if site.axis not in (-1, None):
                size = ops.moveaxis(size, site.axis, -1)
            by_unit = ops.sum(size, tuple(range(len(size.shape) - 1)))
            name = site.name, "gradient"
            sums[name] = sums[name] + by_unit if name in sums else by_unit
        return sums


def count(
    model: keras.Model,
    data: Any,
    layers: Sequence[Any] | str | None = None,
    *,
    batch_size: int = 256,
    **options: Any,
) -> Census:
    """Counts the units of `model`'s layers on `data`, in evaluation mode.

    `options`, the other arguments and the errors are those of `Probe` and `Probe.count`. Each call traces the
    model; build a `Probe` to count again and again.
    """
    return Probe(model, layers, **options).count(data, batch_size=batch_size)


def input_names(model: keras.Model) -> list[str]:
    graph = functional(model)
    if graph is None or not getattr(graph, "inputs", None):
        return ["the inputs"]
    return [f"input {tensor.name!r}" for tensor in keras.tree.flatten(graph._inputs_struct)]


def _shape(tensor: Any) -> str:
    return "(batch, " + ", ".join(map(str, tensor.shape[1:])) + ")" if len(tensor.shape) else "()"


def _bad_weight(model: keras.Model) -> str:
    """Path of the first weight that is not finite; the sums are computed on the device."""
    weights = [v for v in model.weights if keras.backend.is_float_dtype(v.dtype)]
    if not weights:
        return ""
    with totals.no_gradients():
        finite = [ops.all(ops.isfinite(v.value)) for v in weights]
        fine = np.asarray(totals.to_host(ops.stack(finite)))
    return "" if fine.all() else weights[int(np.argmin(fine))].path
