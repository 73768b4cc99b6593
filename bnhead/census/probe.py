"""A streaming pass over a set of inputs: activations are reduced in the compiled graph, batch by batch."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import feed, gradients, reductions, totals
from bnhead.census.census import Census
from bnhead.census.certificates import certificates_of
from bnhead.census.labels import Labels
from bnhead.census.sites import Inventory, Site
from bnhead.errors import UsageError
from bnhead.graph import taps, trace
from bnhead.graph.inputs import arrays_of, batches, check_data
from bnhead.graph.weights import WeightCheck

BY = ("output", "slope")
_GRADIENTS = {"pre_activation": "gradient", "output": "output_gradient"}  # part of a tap -> its sum


class Probe:
    """Counts the units of a model's layers, in one compiled pass over a set of inputs.

    The model runs as in `predict`, in evaluation mode, and is not changed: neither moving statistics nor seed
    generators nor recurrent states. A probe is built once and reads the current weights in every count. The
    totals stay on the device until the pass is over. Under `tf.distribute` it runs on one replica, since all
    have the same weights. On PyTorch the counted layers' activations of one batch are held in memory, as in a
    training step.

    Args:
        model: any built Keras model.
        layers: None for the last activation before the output, "all" for every activation, "norms" for every
            batch norm, or a sequence of names and layers; see `bnhead.census.sites`. A layer that is called
            several times is counted once per call: `relu`, `relu#2`, ...
        eps: a unit is silent if its absolute output is at most this.
        by: "output" compares |a| with `eps`; "slope" compares the activation's slope |da/dz|, which makes a
            LeakyReLU of slope 0.2 silent on its negative side for eps = 0.2.
        gradients: whether to count gradient-dead and gradient-dormant units, with the loss of the compiled
            model. This needs a backward pass, labels, and a model whose outputs depend on their own input
            only, not on the rest of the batch, as in evaluation mode.
        together: whether to count co-death, which needs memory for units x units numbers.
        clones: whether to count the correlations of the units' outputs, which needs as much memory, and for
            each input and position units x units products.
        classes: number of classes of the labels; None for the size of the model's output. Labels that are not
            classes, such as regression targets or numbers beyond that size, are not counted by class, and the
            census notes it.

    Attributes:
        first_nonfinite_weight: returns the path of the model's first weight that is not finite, or "".

    Raises:
        UsageError: a model that is not built, a layer that the model does not have, or one without units. If
            the model does not declare its inputs (a subclassed model), `prepare` or `count` raises it.
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
        clones: bool = False,
        classes: int | None = None,
    ):
        totals.require_threshold(eps)
        if by not in BY:
            raise UsageError(f"by must be 'output' or 'slope', got {by!r}")
        if gradients and not getattr(model, "compiled", False):
            raise UsageError("gradient-dead units need the loss of a compiled model")
        trace.require_built(model)
        self._model, self._layers, self._classes = model, layers, classes
        self.first_nonfinite_weight = WeightCheck(model)
        self._gradients = gradients
        options = {"eps": eps, "by_slope": by == "slope", "together": together, "clones": clones}
        self._options = {**options, "ordered": True}
        self._inventory: Inventory | None = None
        self._plan: totals.Plan | None = None
        self._smooth: list[Site] = []  # selected layers that `by="slope"` cannot count
        self._passes: dict[tuple[Labels, bool], tuple[Callable, Callable, dict[str, totals.Layout]]] = {}
        if (inputs := trace.specs(model)) is not None:
            self._make_plan(inputs)

    @property
    def model(self) -> keras.Model:
        """The counted model."""
        return self._model

    @property
    def sites(self) -> list[Site]:
        """The counted sites; empty until the first batch if the model does not declare its inputs."""
        return [] if self._plan is None else self._plan.sites

    @property
    def layers(self) -> list[keras.Operation | None]:
        """The counted layers and operations."""
        return [site.layer for site in self.sites]

    def prepare(self, data: Any, batch_size: int = 256) -> None:
        """Selects the layers and checks labels in arrays, before anything is counted.

        Args:
            data: as for `count`. Batches are not read, so that an iterator stays complete.
            batch_size: as for `count`.

        Raises:
            UsageError: as for `count`.
        """
        arrays = arrays_of(data)
        if arrays is not None:
            if self._plan is None:
                self._make_plan(
                    feed.arranged(
                        self._model, next(batches(data, feed.batch_size_of(self._model, batch_size)))[0]
                    )
                )
            self._labels_of(arrays[1])
        elif self._plan is None and hasattr(data, "element_spec"):
            x = keras.utils.unpack_x_y_sample_weight(data.element_spec)[0]
            if (inputs := trace.abstract(x)) is not None:
                self._make_plan(inputs)

    def count(self, data: Any, *, batch_size: int = 256, first: int = 0) -> Census:
        """Counts on all of `data`, including the last partial batch.

        Args:
            data: inputs as an array, a list or dict of arrays for a model of several inputs, a tuple
                `(x, y)`, or batches of x or of such tuples: a `tf.data.Dataset`, a `PyDataset`, a
                `DataLoader`, a finite iterator. Labels are whole numbers or one-hot.
            batch_size: number of inputs per batch, if `data` is arrays.
            first: index of the first of these inputs in the full set, if a part of it is counted: the parts
                merge in any order, and dead(n) stays exact.

        Raises:
            UsageError: data that cannot be read or does not fit the model, or arrays of labels outside of the
                `classes` that the user set, or a negative `first`.
        """
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            raise UsageError(f"first must be a whole number of at least 0, got {first!r}")
        return self._count(data, batch_size, first)[0]

    def count_per_input(self, data: Any, *, batch_size: int = 256) -> tuple[Census, np.ndarray, np.ndarray]:
        """`count`, and the outputs and shares of `per_input`, in one pass over the data."""
        census, rows = self._count(data, batch_size, per_input=True)
        return census, *(np.concatenate([row[name] for row in rows]) for name in ("outputs", "silent"))

    def _count(
        self, data: Any, batch_size: int, first: int = 0, per_input: bool = False
    ) -> tuple[Census, list[dict[str, np.ndarray]]]:
        """The census, and the arrays of `_of_each_input` for every batch."""
        check_data(data, batch_size)
        arrays = arrays_of(data)
        total: totals.Totals | None = None
        rows = []
        for x, y in batches(data, feed.batch_size_of(self._model, batch_size)):
            x = feed.arranged(self._model, x)
            if self._gradients and y is None:
                raise UsageError("gradient-dead units need labels: data must be (x, y)")
            with feed.fitting(x):
                if total is None:
                    if self._plan is None:
                        self._make_plan(x)
                    # of arrays, all labels decide how they are read; of a stream, those of the first batch
                    labels = self._labels_of(y, stream=True) if arrays is None else self._labels_of(arrays[1])
                    run, add, layouts = self._compiled(labels, per_input)
                    total = totals.Totals(layouts, add)
                sums = run(x, y if labels.form or self._gradients else None)
                if per_input:
                    rows.append(totals.to_host(sums.pop("inputs")))
                total.add(sums)
        if total is None:
            raise UsageError("data must have at least one batch of inputs")
        census = totals.census_of(self._plan, labels, total.read(), first)
        if labels.note:
            census.notes.insert(0, labels.note)
        census.not_looked_at = dict(self._inventory.missed)
        census.not_looked_at |= {site.name: "an output, which has no slope" for site in self._smooth}
        if getattr(getattr(self._model, "optimizer", None), "use_ema", False):
            census.notes.append(
                "weights: those that the model has now; use_ema puts their averages in place when fit ends"
            )
        bad_weights = self.first_nonfinite_weight()
        for counts in census.layers.values():
            counts.bad_weights = bad_weights
        with_dead = [site for site in self.sites if census.layers[site.name].dead.any()]
        # a unit that cannot fire is dead, so most counts need no certificate
        certificates = {} if bad_weights else certificates_of(self._model, with_dead)
        for site in self.sites:
            if site not in with_dead:
                census.layers[site.name].causes = np.zeros(site.units, np.int64)
            elif site.name in certificates:
                census.layers[site.name].causes = certificates[site.name].causes
        return census, rows

    def per_input(
        self, data: Any, *, batch_size: int = 256
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The model's output for every input, and the share of silent units of each counted layer.

        Args:
            data, batch_size: as for `count`.

        Returns:
            Outputs `(inputs, ...)`; float32 `(inputs, layers)` in the order of `sites`: shares in [0, 1], NaN
            for values that are not finite, and for several rows per input their mean; and the labels
            in `data`, None without labels.

        Raises:
            UsageError: as for `count`, or a model of several outputs.
        """
        check_data(data, batch_size)
        run, outputs, shares, labels = None, [], [], []
        for x, y in batches(data, feed.batch_size_of(self._model, batch_size)):
            x = feed.arranged(self._model, x)
            if self._plan is None:
                self._make_plan(x)
            run = run or trace.compiled(self._silent_shares, self._model)
            arrays = totals.to_host(run(x))
            outputs.append(arrays["outputs"])
            shares.append(arrays["silent"])
            labels += [] if y is None else [np.asarray(y)]
        if not outputs:
            raise UsageError("data must have at least one batch of inputs")
        return np.concatenate(outputs), np.concatenate(shares), np.concatenate(labels) if labels else None

    def _silent_shares(self, x: Any) -> dict[str, Any]:
        """The model's pass on one batch, reduced by `_of_each_input`."""
        paths = {site.key[0] for site in self._plan.sites}
        with taps.opened(self._model, evaluating=True, paths=paths) as opened:
            outputs = self._model(x, training=False)
        return self._of_each_input(outputs, opened.passes[0])

    def _of_each_input(self, outputs: Any, model_pass: taps.Pass) -> dict[str, Any]:
        """The outputs of one batch, and the silent share of each site and input."""
        if not ops.is_tensor(outputs):
            raise UsageError("figures of each input need a model of a single output")
        by_key = totals.taps_by_key(model_pass)
        inputs, columns = ops.shape(outputs)[0], []
        for site in self._plan.sites:
            tap = by_key[site.key]
            active, _ = reductions.activity(tap, self._plan.eps, self._plan.by_slope)
            share = 1 - ops.mean(ops.cast(active, "float32"), axis=1)
            share = ops.where(reductions.finite_rows(tap.output), share, np.nan)
            columns.append(ops.mean(ops.reshape(share, (inputs, -1)), axis=1))
        return {"outputs": outputs, "silent": ops.stack(columns, axis=1)}

    def _make_plan(self, inputs: Any) -> None:
        self._inventory = Inventory.of(self._model, trace.forward(self._model, inputs))
        sites = self._inventory.select(self._layers)
        if self._options["by_slope"]:
            self._smooth = [site for site in sites if site.key[2]]  # layers' outputs
            if not (sites := [site for site in sites if site not in self._smooth]):
                raise UsageError(
                    f"by='slope' needs an activation; {self._smooth[0].name!r} is counted at its output"
                )
        self._plan = totals.Plan.of(self._inventory, sites, **self._options)

    def _labels_of(self, y: Any, stream: bool = False) -> Labels:
        classes = self._classes
        if classes is None:
            classes = 0 if self._inventory is None else self._inventory.classes
        return Labels.of(y, classes, strict=self._classes is not None and not stream)

    def _compiled(
        self, labels: Labels, per_input: bool
    ) -> tuple[Callable, Callable, dict[str, totals.Layout]]:
        """The pass over a batch, the addition of a batch, and the layouts of their vectors.

        Traced once for equal arguments.
        """
        if (labels, per_input) in self._passes:
            return self._passes[labels, per_input]
        plan = self._plan
        layouts = {name: totals.Layout() for name in ("integers", "reals", "first_active")}

        def reduce_batch(x, y):
            # only the tensors of `plan.paths` are kept, so that the backend frees all others early
            with taps.opened(self._model, evaluating=True, paths=plan.paths) as opened:
                outputs = self._model(x, training=False)
            model_pass = opened.passes[0]
            one_hot = labels.one_hot(ops.convert_to_tensor(y)) if labels.form else None
            numbers = totals.integer_counts(plan, model_pass, one_hot)
            matrices: dict[str, dict[str, Any]] = {}
            for layer, name in [key for key in numbers if key[1] in totals.MATRICES]:
                matrices.setdefault(layer, {})[name] = numbers.pop((layer, name))
            # the same layout for both: an index and the number of rows of its layer, for each unit
            first, rows = (
                layouts["first_active"].pack(
                    {(site.name, "first_active"): numbers.pop((site.name, name)) for site in plan.sites},
                    "int32",
                )
                for name in ("first_active", "rows")
            )
            sums, moments = totals.real_sums(plan, model_pass)
            if self._gradients:
                sums |= self._gradient_sums(x, y)
            wide = any(keras.backend.standardize_dtype(a.dtype) == "float64" for a in sums.values())
            return {
                "integers": layouts["integers"].pack(numbers, "int32"),
                "matrices": matrices,
                "reals": layouts["reals"].pack(sums, "float64" if wide else "float32"),
                **moments,
                "first_active": first,
                "rows": rows,
                **({"inputs": self._of_each_input(outputs, model_pass)} if per_input else {}),
            }

        add = totals.compiled_add(len(plan.watchpoints))
        compiled = trace.compiled(reduce_batch, self._model), add, layouts
        return self._passes.setdefault((labels, per_input), compiled)

    def _gradient_sums(self, x: Any, y: Any) -> dict[totals.Key, Any]:
        """Sums over inputs and positions of |dL/dz| and |dL/da|, a site's pre-activation z and output a.

        Both in one backward pass. A layer's output has no pre-activation and stands for both. L is the loss
        of the input. Runs the model again, once per loss scale: differentiation replaces the watched tensors.
        """
        sites = {key: site for site in self._plan.sites for key in site.steps or (site.key,)}

        def forward(watch):
            watched = {}

            def replaced(key, part, tensor):
                if key in sites:
                    watched[key, part] = tensor = watch((key, part), tensor)
                return tensor

            with taps.opened(self._model, evaluating=True, watch=replaced, paths=()):
                outputs = self._model(x, training=False)
            return watched, self._model._compile_loss(y, outputs)

        half = any(
            getattr(layer, "compute_dtype", "") == "float16" for layer in self._model._flatten_layers()
        )
        sums: dict[totals.Key, Any] = {}
        for (key, part), size in gradients.magnitudes(forward, half=half).items():
            site, is_layer_output = sites[key], key[2]
            if site.axis not in (-1, None):
                size = ops.moveaxis(size, site.axis, -1)
            by_unit = ops.sum(size, tuple(range(len(size.shape) - 1)))
            for name in ("gradient", "output_gradient") if is_layer_output else (_GRADIENTS[part],):
                # the steps of a `TimeDistributed` layer are several tensors of one site
                total = sums.get((site.name, name))
                sums[site.name, name] = by_unit if total is None else total + by_unit
        inputs = ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
        scale = gradients.inputs_per_loss(self._model._compile_loss, inputs)
        return {name: total * ops.cast(scale, total.dtype) for name, total in sums.items()}


def count(
    model: keras.Model,
    data: Any,
    layers: Sequence[Any] | str | None = None,
    *,
    batch_size: int = 256,
    first: int = 0,
    **options: Any,
) -> Census:
    """Counts the units of `model`'s layers on `data`, in evaluation mode.

    `options`, the other arguments and the errors are those of `Probe` and `Probe.count`. Each call traces the
    model; to count repeatedly, build one `Probe`.
    """
    return Probe(model, layers, **options).count(data, batch_size=batch_size, first=first)
