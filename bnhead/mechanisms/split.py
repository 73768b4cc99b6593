"""A model cut at the last batch norm of its head, so that this norm can use any statistics.

The layers before the norm run once for a batch; those after it run as often as there are statistics.
Without a norm the cut is before the first Dense after the features, the place of an inserted norm.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead import graph
from bnhead.census import feed, reductions, totals
from bnhead.census.sites import Site, inventory_of
from bnhead.errors import UsageError, nearest
from bnhead.graph import agreement, taps, trace
from bnhead.graph.calls import Call, functional, model_calls, producer
from bnhead.heads.surgery import calls_after_features, features_of, inference
from bnhead.layers import BatchCentering, BatchNoise, BatchScaling
from bnhead.layers.normalization import EPSILON


@dataclass(frozen=True)
class Affine:
    """A norm's map of its input: (x - mean) scale + shift.

    Attributes:
        mean, scale, shift: `(channels,)` or, for statistics of each example, `(examples, channels)`, float64.
    """

    mean: np.ndarray
    scale: np.ndarray
    shift: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The norm's output for `x` `(examples, ..., channels)`, float64."""
        return (x - _spread(self.mean, x)) * _spread(self.scale, x) + _spread(self.shift, x)


def _spread(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`(channels,)` or `(examples, channels)`, shaped to broadcast to `x` `(examples, ..., channels)`."""
    values = np.asarray(values)
    if values.ndim < 2:
        return values
    return values.reshape(len(values), *(1,) * (x.ndim - 2), values.shape[-1])


class Split:
    """A functional model, cut at one norm. It shares the model's layers and reads their current weights.

    Args:
        model: a functional or Sequential model of one output; it is not changed.
        norm: name or path of a batch norm; None for the last one after the features, if there is any.

    Attributes:
        net: the model without nested models and without a label input.
        norm: the layer; None for a model without a batch norm after its features.
        name: the norm's name; without one, that of the Dense before which one would be.
        fc: the first Dense after the cut; None if there is none.
        output: the last Dense of the model, whose outputs are the logits; None if there is none.
        is_current: whether later changes of the model's weights are seen; a nested model may prevent it.
        site: the last activation after the cut, whose units can die; None if there is none.

    Raises:
        UsageError: the model is not functional or has several outputs, it has no such norm, neither a norm
            nor a Dense after its features, or other tensors bypass the norm.
    """

    def __init__(self, model: keras.Model, norm: str | None = None):
        self.model = model
        flat = graph.flattened(model)
        require_one_output(flat.model)
        self._yields_logits = yields_logits(flat.model)
        self.net = inference(flat.model)
        # layers whose name occurs twice in nested models are copied, and do not follow changes of weights
        layers = {id(layer) for layer in model._flatten_layers()}
        self.is_current = all(id(layer) in layers for layer in self.net.layers if layer.weights)
        calls = model_calls(self.net)
        norm_call = self._norm_call(calls, norm if norm is None else flat.name(norm))
        self.norm = None if norm_call is None else norm_call.operation
        position = -1 if norm_call is None else next(i for i, call in enumerate(calls) if call is norm_call)
        head_names = {call.operation.name for call in _calls_after_features(self.net)}
        dense = [
            c for c in calls if isinstance(c.operation, keras.layers.Dense) and c.operation.name in head_names
        ]
        fc = next((call for call in calls[position + 1 :] if any(call is other for other in dense)), None)
        output = dense[-1] if dense else None
        if norm_call is None and fc is None:
            raise UsageError(f"model {model.name!r} has neither a batch norm nor a Dense after its features")
        self.fc, self.output = (None if call is None else call.operation for call in (fc, output))
        self.name = (self.norm or self.fc).name
        self._axis = getattr(self.norm, "axis", -1)
        self._axis = self._axis[0] if isinstance(self._axis, list | tuple) else self._axis
        start = fc.inputs[0] if norm_call is None else norm_call.outputs[0]
        features = fc.inputs[0] if norm_call is None else norm_call.inputs[0]
        tensors = {"outputs": self.net.outputs[0]}
        tensors |= {key: call.inputs[0] for key, call in (("fc", fc), ("output", output)) if call is not None}
        self._after = _between(self.net, start, tensors)
        before_norm = {key: tensor for key, tensor in tensors.items() if key not in self._after.output}
        if "outputs" in before_norm:
            raise UsageError(f"norm {self.name!r}: the output of model {model.name!r} does not depend on it")
        self._before = keras.Model(self.net.inputs, {"features": features, **before_norm})
        self.site = self._last_activation()

    def _norm_call(self, calls: list[Call], norm: str | None) -> Call | None:
        norms = [call for call in calls if hasattr(call.operation, "moving_variance")]
        if norm is None:
            head_names = {call.operation.name for call in _calls_after_features(self.net)}
            later = [call for call in norms if call.operation.name in head_names]
            return later[-1] if later else self._norm_of_vectors(norms)
        names = [call.operation.name for call in norms]
        if names.count(norm) != 1:
            reason = "calls it several times" if norm in names else "has no such batch norm"
            raise UsageError(f"norm {norm!r}: model {self.model.name!r} {reason}{nearest(norm, names)}")
        return norms[names.index(norm)]

    def _norm_of_vectors(self, norms: list[Call]) -> Call | None:
        """The norm that makes the features, if they are a vector: what the last Dense of an MLP reads."""
        tensor = features_of(self.net) if len(self.net.inputs) == 1 else None
        while tensor is not None and len(tensor.shape) == 2:
            call = producer(tensor)
            if call.operation.name in (norm.operation.name for norm in norms):
                return next(norm for norm in norms if norm.operation.name == call.operation.name)
            if len(call.inputs) != 1 or getattr(call.operation, "weights", None):
                return None
            tensor = call.inputs[0]
        return None

    def _last_activation(self) -> Site | None:
        inner = [
            site
            for site in inventory_of(self._after).sites
            if site.counts_by_default and site.layer is not self.net.layers[-1]
        ]
        return inner[-1] if inner else None

    # ---- running ----------------------------------------------------------------------------------

    @functools.cached_property
    def _run_before(self):
        return trace.compiled(lambda x: self._before(x, training=False), self.model)

    @functools.cached_property
    def _run_after(self):
        return trace.compiled(self.after, self.model)

    def inputs_of(self, x: Any) -> Any:
        """A batch of the model's inputs as `net` takes it: without labels, as tensors."""
        if len(keras.tree.flatten(x)) == len(self.net.inputs):
            return feed.arranged(self.net, x)
        return agreement.select_inputs(self.model, self.net, feed.arranged(self.model, x))

    def features(self, x: Any) -> dict[str, np.ndarray]:
        """The output of the layers before the norm, in evaluation mode.

        Args:
            x: a batch of the model's inputs.

        Returns:
            "features" `(examples, ..., channels)` float32, the norm's input; and, if the norm comes after
            them, the inputs "fc" and "output" of these layers.
        """
        x = self.inputs_of(x)
        with feed.fitting(x):
            results = totals.to_host(self._run_before(x))
        results = {key: _float32(array) for key, array in results.items()}
        return {**results, "features": np.moveaxis(results["features"], self._axis, -1)}

    def outputs(self, features: Mapping[str, np.ndarray], affine: Affine) -> dict[str, np.ndarray]:
        """The output of the layers after the norm, if the norm applies `affine`.

        Args:
            features: of `self.features`.
            affine: as returned by `affine` or `own`.

        Returns:
            "logits" `(examples, outputs)`, log-probabilities if the model ends in softmax; "fc" and "output",
            the inputs of these layers `(examples, ..., units)`; "active" `(units,)` bool, whether a unit of
            `site` is active on any of the examples.
        """
        x = features["features"]
        arrays = [_spread(a, x).astype("float32") for a in (affine.mean, affine.scale, affine.shift)]
        # always one array per example, so that the compiled pass has one shape
        shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1])
        tensors = [ops.convert_to_tensor(np.broadcast_to(array, shape)) for array in arrays]
        results = totals.to_host(self._run_after(ops.convert_to_tensor(x), *tensors))
        later = {key: features[key] for key in ("fc", "output") if key in features}
        return {**later, **{k: a if a.dtype == bool else _float32(a) for k, a in results.items()}}

    def after(self, x: Any, mean: Any, scale: Any, shift: Any) -> dict[str, Any]:
        """The tensors of `outputs`, inside the graph."""
        z = ops.moveaxis((x - mean) * scale + shift, -1, self._axis)
        z = ops.cast(z, self._after.inputs[0].dtype)
        paths = () if self.site is None else {self.site.key[0]}
        with taps.opened(self._after, evaluating=True, paths=paths) as opened:
            results = self._after(z, training=False)
        results["logits"] = self._as_logits(results.pop("outputs"))
        if self.site is not None:
            tap = next(t for t in opened.passes[0].activations if t.key == self.site.key)
            results["active"] = ops.any(reductions.activity(tap, 0.0)[0], axis=0)
        return results

    def _as_logits(self, outputs: Any) -> Any:
        outputs = ops.cast(outputs, "float32")
        return outputs if self._yields_logits else ops.log(ops.maximum(outputs, 1e-30))

    def losses(self, outputs: Any, labels: Any) -> Any:
        """`(examples,)` float32, the cross-entropy of each example, inside the graph.

        Args:
            outputs: of `net`.
            labels: `(examples,)` class numbers.
        """
        return keras.losses.sparse_categorical_crossentropy(
            labels, self._as_logits(outputs), from_logits=True
        )

    # ---- statistics -------------------------------------------------------------------------------

    @property
    def moving(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Moving mean and variance of the norm, float64; None without a norm."""
        if self.norm is None:
            return None
        trace.synchronize_variables(self.model)
        return tuple(_float64(v) for v in (self.norm.moving_mean, self.norm.moving_variance))

    @property
    def epsilon(self) -> float:
        """The norm's; without one, that of the head's norms."""
        return float(self.norm.epsilon) if self.norm is not None else EPSILON

    @property
    def gain(self) -> np.ndarray | float:
        """gamma; 1 without one."""
        gamma = getattr(self.norm, "gamma", None)
        return 1.0 if gamma is None else _float64(gamma)

    @property
    def offset(self) -> np.ndarray | float:
        """beta; 0 without one."""
        beta = getattr(self.norm, "beta", None)
        return 0.0 if beta is None else _float64(beta)

    @property
    def normalises(self) -> bool:
        """Whether the norm changes its input in evaluation mode: not without one, nor for batch noise."""
        return self.norm is not None and not isinstance(self.norm, BatchNoise)

    def affine(
        self, mean: np.ndarray, variance: np.ndarray, identity: tuple[np.ndarray, np.ndarray] | None = None
    ) -> Affine:
        """The norm's map with given statistics, gamma and beta.

        A model without a norm, and the layer `BatchNoise`, have one that is the identity for the statistics
        `identity`: gamma = sqrt(variance + epsilon), beta = mean. That is the norm of `heads.insert_bn`.

        Args:
            mean, variance: `(channels,)`, or `(examples, channels)` for statistics of each example.
            identity: mean and variance of the identity; None for `mean` and `variance`.
        """
        deviation = np.sqrt(np.asarray(variance, "float64") + self.epsilon)
        mean = np.asarray(mean, "float64")
        if isinstance(self.norm, BatchCentering):
            return Affine(mean, np.ones_like(mean), np.zeros_like(mean))
        if isinstance(self.norm, BatchScaling):
            return Affine(np.zeros_like(mean), 1 / deviation, np.zeros_like(mean))
        if not self.normalises:
            m, v = (mean, variance) if identity is None else identity
            return Affine(mean, np.sqrt(np.asarray(v, "float64") + self.epsilon) / deviation, np.asarray(m))
        return Affine(mean, self.gain / deviation, self.offset + np.zeros_like(mean))

    def evaluation(self) -> Affine:
        """The norm's map in evaluation mode, with its moving averages; the identity without a norm."""
        if not self.normalises:
            return Affine(np.zeros(1), np.ones(1), np.zeros(1))
        return self.affine(*self.moving)


def _calls_after_features(net: keras.Model) -> list[Call]:
    """`calls_after_features`; all calls for a model of several inputs, whose features are unknown."""
    return calls_after_features(net) if len(net.inputs) == 1 else model_calls(net)


def _between(net: keras.Model, start: Any, tensors: Mapping[str, Any]) -> keras.Model:
    """A model from one tensor of `net` to those of `wanted` that depend on it. It shares `net`'s layers.

    Raises:
        UsageError: a tensor of `wanted` depends on another one that does not depend on `start`.
    """
    inputs = keras.Input(batch_shape=start.shape, dtype=start.dtype)
    values = {id(start): inputs}
    for call in model_calls(net):
        if not any(id(tensor) in values for tensor in call.inputs):
            continue
        missing = [t for t in call.inputs if id(t) not in values]
        if missing:
            raise UsageError(
                f"layer {call.operation.name!r} reads tensors that do not come from {start.name!r}, so the "
                f"model {net.name!r} cannot be cut there"
            )
        arguments, keywords = keras.tree.map_structure(
            lambda a: values.get(id(a), a), (call.arguments, call.keywords)
        )
        results = keras.tree.flatten(call.operation(*arguments, **keywords))
        values.update(zip(map(id, call.outputs), results, strict=True))
    reached = {key: values[id(tensor)] for key, tensor in tensors.items() if id(tensor) in values}
    return keras.Model(inputs, reached)


def require_one_output(model: keras.Model) -> Any:
    """The output tensor of a functional model; UsageError if there are several."""
    net = functional(model)
    if net is None or len(net.outputs) != 1:
        raise UsageError(f"model {model.name!r} must be a functional or Sequential model of one output")
    return net.outputs[0]


def yields_logits(model: keras.Model) -> bool:
    """Whether the outputs of a functional model are not a softmax."""
    last = producer(require_one_output(model)).operation
    return not isinstance(last, keras.layers.Softmax) and (
        getattr(last, "activation", None) is not keras.activations.softmax
    )


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(examples,)` float64, the loss of each example of softmax logits."""
    logits = logits.astype("float64")
    shifted = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - np.take_along_axis(shifted, labels[:, None], -1)[:, 0]


def _float32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype("float32")


def _float64(variable: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), "float64")
