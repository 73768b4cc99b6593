"""Batch norm with several sets of statistics: each example is normalised with those of its route.

A route is a domain (Chang et al. 2019, "Domain-Specific Batch Normalization"), or clean and adversarial (Xie
et al. 2020, "AdvProp"): kinds of inputs whose features have different means and variances.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from bnhead import graph
from bnhead.errors import UsageError
from bnhead.layers.moments import by_example, group_moments, moving_average
from bnhead.layers.normalization import EPSILON, MOMENTUM, BatchNormalization


class _Branch(BatchNormalization):
    """The batch norm of a route. With `affine_of`, a function, it has the gamma and beta of another one."""

    def __init__(self, affine_of: Callable[[], BatchNormalization] | None = None, **options):
        super().__init__(**options)
        self._affine_of = affine_of

    def build(self, input_shape):
        if self._affine_of is None:
            super().build(input_shape)
            return
        center, scale = self.center, self.scale
        self.center = self.scale = False
        super().build(input_shape)
        self.center, self.scale = center, scale
        self.gamma, self.beta = self._affine_of().gamma, self._affine_of().beta


@keras.saving.register_keras_serializable("bnhead")
class RoutedBatchNormalization(keras.layers.Layer):
    """Batch norms of which each example uses one: the one of its route.

    A batch may mix routes. In training an example is normalised by the mean and biased variance of the
    batch's examples on its route, and each route's moving averages take one step towards them; those of a
    route without an example stay. In inference an example is normalised by the moving averages of its route.
    One route, or one route for the entire batch, is `BatchNormalization`.

    Args:
        routes: number of routes, at least 1.
        default_route: route of a batch that comes without one.
        routed_affine: whether each route has its own gamma and beta, as in DSBN and AdvProp; by default all
            share them.
        options: arguments of `keras.layers.BatchNormalization`; the axis is the last.

    Call arguments:
        inputs: `(batch, ..., channels)`.
        route: `(batch,)` integers in 0 to `routes` - 1, or an integer for the entire batch. None takes that
            of `on_route`, and without one `default_route`. For a batch whose routes follow one another, a
            tuple with the number of examples on each, such as `(96, 32)`, takes the batch norm's fused kernel
            for each part, which is faster.
        mask: `(batch, ...)` bool; in training, statistics exclude masked positions.

    Raises:
        UsageError: a route out of range. A compiled step raises TensorFlow's `InvalidArgumentError` with the
            same line; where XLA compiles it, the example's outputs are NaN.

    Attributes:
        branches: the batch norm of each route.

    Reference: Chang et al. 2019, arXiv 1906.03950, section 3.2; Xie et al. 2020, arXiv 1911.09665, section
    4.1. Their batches hold one route at a time, or have fixed parts.
    """

    def __init__(self, routes: int, *, default_route: int = 0, routed_affine: bool = False, **options):
        layer_options = {key: options.pop(key) for key in ("name", "dtype") if key in options}
        trainable = options.pop("trainable", True)
        super().__init__(**layer_options)
        if isinstance(routes, bool) or not isinstance(routes, int) or routes < 1:
            raise UsageError(f"{self.name}: routes must be a whole number of at least 1, got {routes!r}")
        self.routes, self.routed_affine, self.default_route = routes, routed_affine, default_route
        self._require_known(default_route, "default_route")
        options["dtype"] = self.dtype_policy
        self.branches = [_Branch(name=self.name, **options)]
        affine_of = None if routed_affine else lambda: self.branches[0]
        self.branches += [
            _Branch(affine_of, name=f"{self.name}_route{route}", **options) for route in range(1, routes)
        ]
        first = self.branches[0]
        if first.axis != -1 or first.renorm:
            raise UsageError(f"{self.name}: axis must be -1, and there is no renorm")
        self.supports_masking = True
        self.trainable = trainable  # now that there are branches, which follow

    def build(self, input_shape):
        for branch in self.branches:
            branch.build(input_shape)

    def call(self, inputs, route=None, training=None, mask=None):
        if route is None:
            route = self.default_route if _scope.route is None else _scope.route
        if isinstance(route, tuple):
            return self._in_parts(inputs, route, training, mask)
        self._require_known(route)
        if isinstance(route, int) or self.routes == 1:
            branch = self.branches[route if isinstance(route, int) else 0]
            return branch(inputs, training=training, mask=mask)
        first, x = self.branches[0], ops.cast(inputs, "float32")
        route = ops.cast(route, "int32")
        known = ops.logical_and(route >= 0, route < self.routes)
        route = _checked_in_graph(route, known, f"{self.name}: {self._rule('route')}")
        route = ops.clip(route, 0, self.routes - 1)
        if training and self.trainable:
            mean, variance, count = group_moments(
                x, route, self.routes, mask, synchronized=first.synchronized
            )
            self._update_averages(mean, variance, count > 0)
        else:
            mean, variance = self._rows("moving_mean"), self._rows("moving_variance")
        scale = ops.rsqrt(variance + first.epsilon)
        scale = scale * self._affine("gamma") if first.scale else scale
        rank = len(x.shape)
        scale = by_example(scale, route, rank)
        scale = ops.where(ops.reshape(known, (-1, *[1] * (rank - 1))), scale, float("nan"))
        outputs = (x - by_example(mean, route, rank)) * scale
        if first.center:
            beta = self._affine("beta")
            outputs = outputs + (by_example(beta, route, rank) if self.routed_affine else beta)
        return ops.cast(outputs, self.compute_dtype)

    def _in_parts(self, inputs, counts: tuple[int, ...], training, mask):
        """The outputs of a batch whose first `counts[0]` examples are on route 0, and so on."""
        size = inputs.shape[0]
        if len(counts) != self.routes or (size is not None and sum(counts) != size):
            raise UsageError(
                f"{self.name}: route must have {self.routes} numbers of examples with the sum {size}, "
                f"got {counts}"
            )
        taken = [(branch, count) for branch, count in zip(self.branches, counts, strict=True) if count]
        if len(taken) == 1:
            return taken[0][0](inputs, training=training, mask=mask)
        starts = list(itertools.accumulate(count for _, count in taken[:-1]))
        # the gradient of a split is a concatenation; that of a slice would be padded to the whole batch
        parts = ops.split(inputs, starts)
        masks = [None] * len(taken) if mask is None else ops.split(mask, starts)
        outputs = [
            branch(part, training=training, mask=part_mask)
            for (branch, _), part, part_mask in zip(taken, parts, masks, strict=True)
        ]
        return ops.concatenate(outputs)

    def _affine(self, name: str):
        """gamma or beta, float32: `(routes, channels)`, or `(channels,)` if all routes share it."""
        return (
            self._rows(name) if self.routed_affine else ops.cast(getattr(self.branches[0], name), "float32")
        )

    def _rows(self, name: str):
        """`(routes, channels)` float32, the variable of all branches with this name."""
        return ops.stack([ops.cast(getattr(branch, name), "float32") for branch in self.branches])

    def _update_averages(self, mean, variance, present) -> None:
        for route, branch in enumerate(self.branches):
            for average, value in ((branch.moving_mean, mean), (branch.moving_variance, variance)):
                moved = moving_average(average, ops.cast(value[route], average.dtype), branch.momentum)
                average.assign(ops.where(present[route], moved, ops.convert_to_tensor(average)))

    def _rule(self, argument: str) -> str:
        return f"{argument} must be 0" + (f" to {self.routes - 1}" if self.routes > 1 else "")

    def _require_known(self, route: Any, argument: str = "route") -> None:
        """Raises UsageError for a route out of range, or of another kind, where its values are at hand."""
        if isinstance(route, int) and not isinstance(route, bool):
            values = [route]
        elif not hasattr(route, "shape") or "int" not in keras.backend.standardize_dtype(route.dtype):
            got = keras.backend.standardize_dtype(route.dtype) if hasattr(route, "dtype") else repr(route)
            raise UsageError(f"{self.name}: {argument} must be integers, one for each example, got {got}")
        elif len(route.shape) != 1:
            raise UsageError(f"{self.name}: {argument} must be of shape (batch,), got {tuple(route.shape)}")
        else:
            values = [] if _is_traced(route) else ops.convert_to_numpy(route).tolist()
        for value in values:
            if not 0 <= value < self.routes:
                raise UsageError(f"{self.name}: {self._rule(argument)}, got {value}")

    def to_plain(self) -> tuple[keras.layers.Layer, list]:
        """Keras' batch norm that computes the same in inference on the default route, and its weights.

        Raises:
            UsageError: the layer reads a route in a model; `at_route` chooses one first.
        """
        if any(len(node.input_tensors) > 1 for node in self._inbound_nodes):
            raise UsageError(f"{self.name} reads a route: choose one first, with at_route(model, route)")
        plain, weights = self.branches[self.default_route].to_plain()
        return type(plain).from_config({**plain.get_config(), "name": self.name}), weights

    def get_config(self):
        options = self.branches[0].get_config()
        settings = ("routes", "default_route", "routed_affine")
        return {**options, **super().get_config(), **{name: getattr(self, name) for name in settings}}


def _is_traced(tensor: Any) -> bool:
    """Whether a tensor has no values yet, in a graph or a compiled function."""
    backend = keras.backend.backend()
    if isinstance(tensor, keras.KerasTensor):
        return True
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.is_symbolic_tensor(tensor)
    if backend == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    return False


def _checked_in_graph(route, known, rule: str):
    """The routes; TensorFlow's graph checks them first when it runs."""
    if keras.backend.backend() != "tensorflow":
        return route
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(known), [f"{rule}, got", route])]):
        return tf.identity(route)


class _Scope(threading.local):
    route: Any = None


_scope = _Scope()  # by thread: replicas of `tf.distribute` trace in threads


@contextlib.contextmanager
def on_route(route: Any) -> Iterator[None]:
    """Inside, routed norms that are called without a route use this one.

    For a training step that chooses the route itself: the model reads images alone.

    Args:
        route: as of `RoutedBatchNormalization`.
    """
    outer, _scope.route = _scope.route, route
    try:
        yield
    finally:
        _scope.route = outer


def route_input(name: str = "route") -> keras.KerasTensor:
    """An input for the routes of a batch, `(batch,)` int32; None as its value is the default route."""
    return keras.Input((), dtype="int32", name=name, optional=True)


class RoutedNorm:
    """Makes routed norms that read one route: the `norm` of a backbone's builder and of `heads.apply`.

        route = route_input()
        model = resnet20((32, 32, 3), "bn_fc", 10, norm=RoutedNorm(route, routes=2))
        model.fit([images, routes], labels)

    Args:
        route: the route, an input of the model.
        routes, default_route, routed_affine: as of `RoutedBatchNormalization`.
        options: other arguments of it; momentum and epsilon are those of the backbones by default.

    Attributes:
        route: the route.
    """

    def __init__(
        self, route: keras.KerasTensor, routes: int, *, default_route: int = 0, routed_affine: bool = False,
        **options,
    ):  # fmt: skip
        self.route = route
        self._options = {"default_route": default_route, "routed_affine": routed_affine}
        self._options |= {"routes": routes, "momentum": MOMENTUM, "epsilon": EPSILON, **options}

    def __call__(self, name: str, **options) -> Callable:
        """A function that normalises a tensor, by a layer with this name and further options."""
        layer = RoutedBatchNormalization(name=name, **{**self._options, **options})
        return lambda x: layer(x, self.route)


def with_routes(
    model: keras.Model,
    routes: int,
    *,
    default_route: int = 0,
    routed_affine: bool = False,
    as_input: bool = True,
) -> keras.Model:
    """A copy of a functional model whose batch norms are routed; each route begins as the model's.

    Gain, offset and statistics are copied to every route, as DSBN starts from pre-trained weights. On every
    route the copy's outputs are the model's.

    Args:
        model: the model, which does not change. The copy is not compiled.
        routes, default_route, routed_affine: as of `RoutedBatchNormalization`.
        as_input: whether the copy has a second input `route`, `(batch,)` int32, at the end of a list.
            Otherwise the routes are those of `on_route`.

    Raises:
        UsageError: a layer normalises by the batch in another way, such as a ghost batch norm; a model
            without batch norms.
    """
    flat = graph.inlined(model)
    more_inputs = (
        [route_input(graph.free_name("route", [tensor.name for tensor in flat.inputs]))] if as_input else []
    )
    settings = {"default_route": default_route, "routed_affine": routed_affine}

    def remake(layer):
        if not hasattr(layer, "moving_variance") and not isinstance(layer, RoutedBatchNormalization):
            return graph.clone_layer(layer)
        if type(layer) not in (keras.layers.BatchNormalization, BatchNormalization) or layer.renorm:
            raise UsageError(f"layer {layer.name!r}: a {type(layer).__name__} cannot be routed")
        if layer.axis not in (-1, layer.input_spec.ndim - 1):
            raise UsageError(f"layer {layer.name!r} normalises axis {layer.axis}; a routed one, the last")
        weights = layer.get_weights()
        copies = weights if routed_affine else weights[-2:]
        options = {**layer.get_config(), "axis": -1, **settings}
        return RoutedBatchNormalization(routes, **options), [*weights, *copies * (routes - 1)]

    def perform(layer, *arguments, **keywords):
        reads = more_inputs if isinstance(layer, RoutedBatchNormalization) else []
        return layer(*arguments, *reads, **keywords)

    routed = graph.copy(flat, remake, perform=perform, more_inputs=more_inputs)
    if not any(isinstance(layer, RoutedBatchNormalization) for layer in routed.layers):
        raise UsageError(f"model {model.name!r} has no batch norm to route")
    return routed


def at_route(model: keras.Model, route: int) -> keras.Model:
    """A functional model on one route, without an input for it; it shares all layers and weights.

    In place of each routed norm it has the batch norm of that route, so everything that is made for batch
    norms applies to it: folding, population statistics, counting, plain layers. A model without routed norms
    is returned unchanged.

    Raises:
        UsageError: a route that a layer does not have.
    """
    if not any(isinstance(layer, RoutedBatchNormalization) for layer in model.layers):
        return model

    def choose(operation, *arguments, **keywords):
        if not isinstance(operation, RoutedBatchNormalization):
            return operation(*arguments, **keywords)
        operation._require_known(route)
        keywords.pop("route", None)
        return operation.branches[route](arguments[0], **keywords)

    inputs = graph.new_inputs(model)
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, graph.replay(model, inputs, choose))
    return keras.Model(graph.used_inputs(model, inputs, outputs), outputs, name=model.name)
