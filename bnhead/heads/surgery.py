"""Changing the head of a model that exists: folding its norms, putting one in, swapping all of it."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from bnhead import graph
from bnhead.errors import UsageError, nearest
from bnhead.graph import agreement, calls
from bnhead.heads.build import inference, is_of_a_head, label_input
from bnhead.heads.grammar import Head, parse
from bnhead.layers import batch_norm, fold_batch_norm, recompute_batch_stats


class Folded(NamedTuple):
    """What `fold` returns.

    Attributes:
        model: the folded copy.
        difference: the largest absolute difference of an output, relative to the largest absolute output
            where that is above 1.
    """

    model: keras.Model
    difference: float


def fold(model: keras.Model, data: Any = None) -> Folded:
    """Merges the batch norms of a model's head into the Dense layers beside them, for inference.

    A norm on the pooled features (P1) or between the FC and the output (P2) goes into the Dense behind it,
    one on the logits (P3) into the output layer, one before average pooling (P0) through the pooling.
    Centring and scaling layers, frozen, ghost and renorm ones go as well; the backbone's norms stay, see
    `bnhead.layers.fold_batch_norm` for those.

    Args:
        model: a functional model with a head of `bnhead.heads` or any classifier; it is left as it is.
        data: an array of inputs to compare outputs on; None for 64 of standard normal numbers.
    """
    given = graph.inlined(model)
    model = inference(given)
    names = [call.operation.name for call in head_of(model)]
    folded = fold_batch_norm(model, names)
    inputs = (
        next(agreement.made_up(model, pixels=False, examples=64))
        if data is None
        else agreement.inputs_of(given, model, data)
    )
    before, after = (agreement.outputs(m, inputs) for m in (model, folded))
    largest = max(np.abs(a - b).max() for a, b in zip(before, after, strict=True))
    return Folded(folded, float(largest / max(1.0, *(np.abs(array).max() for array in before))))


def insert_bn(
    model: keras.Model, data: Any, before: str | None = None, *, batch_size: int = 256
) -> keras.Model:
    """A copy of a trained model with a batch norm in its head that changes nothing yet.

    The norm's statistics m and v are those of `data` where it stands; with gamma = sqrt(v + epsilon) and
    beta = m it is the identity in evaluation mode, to rounding. What training makes of it is its own.

    Args:
        model: a functional model with a head of `bnhead.heads` or any classifier; it is left as it is.
        data: inputs to measure on, training data: as `recompute_batch_stats`'.
        before: name of the layer that the norm is put before, or its path (`"encoder/conv"`) where nested
            models have several of that name; None for the first Dense behind the features (P1).
        batch_size: inputs at a time, where `data` is arrays.

    Raises:
        UsageError: there is no such layer, or no Dense, or it is called more than once.
        CopyError: the copy's outputs are not the model's.
    """
    flat = graph.flattened(model)
    model, target = flat.model, flat.name(before) if before else _first_dense(flat.model)
    _check_target(model, target)
    name = graph.free_name("head_bn", _names(model))

    def perform(layer, *arguments, **keywords):
        if layer.name == target:
            arguments = batch_norm(name, dtype=layer.dtype_policy)(arguments[0]), *arguments[1:]
        return layer(*arguments, **keywords)

    copied = graph.copy(model, perform=perform)
    recompute_batch_stats(copied, data, [name], batch_size=batch_size)
    norm = copied.get_layer(name)
    norm.gamma.assign(keras.ops.sqrt(norm.moving_variance + norm.epsilon))
    norm.beta.assign(norm.moving_mean)
    graph.require_agreement(model, copied)
    return copied


def _check_target(model: keras.Model, target: str) -> None:
    found = [call for call in calls(model) if call.operation.name == target]
    if not found:
        names = [call.operation.name for call in calls(model)]
        raise UsageError(f"before: layer {target!r} is not in model {model.name!r}{nearest(target, names)}")
    if len(found) > 1:
        raise UsageError(f"before: layer {target!r} is called more than once in model {model.name!r}")
    first = found[0].arguments[0] if found[0].arguments else None
    one = len(found[0].inputs) == 1 and first is found[0].inputs[0]
    if not isinstance(found[0].operation, keras.layers.Layer) or not one:
        raise UsageError(f"before: {target!r} must be a layer that reads one tensor, as its first argument")


def swap(
    model: keras.Model, head: str | Head, outputs: int | None = None, *, seed: int | None = None, **options
) -> keras.Model:
    """A copy of a model with another head on the same backbone.

    The backbone keeps its weights. So do the head's layers that have the name and the shapes of layers of the
    old one: from `fc` to `bn_fc`, `head_fc` and `head_out` keep theirs. What stood behind a head of
    `bnhead.heads` (a scaling of the outputs, say) stands behind one with as many outputs; a stranger's
    classifier goes with all that follows it, so the new model returns logits. The new head computes in the
    backbone's precision.

    Args:
        model: a functional model: a run's, one of keras.applications, one of yours. It is left as it is.
        head: the new head, its text or a parsed one.
        outputs: number of outputs; None for as many as before.
        seed: seed of the new head's random streams.
        options: `bnhead.heads.apply`'s other keyword arguments.

    Raises:
        CopyError: the copied backbone's features are not the model's.
    """
    head, model = parse(head), inference(graph.inlined(model))
    features = features_of(model)
    before = keras.Model(graph.used_inputs(model, model.inputs, features), features, name=model.name)
    backbone = graph.copy(before)
    graph.require_agreement(before, backbone)
    outputs = model.outputs[0].shape[-1] if outputs is None else outputs
    labels = label_input(head, graph.free_name("label", _names(backbone)))
    with _policy_of(features):
        logits = head.apply(backbone.outputs[0], outputs, labels=labels, seed=seed, **options)
    inputs = backbone.inputs if labels is None else [*backbone.inputs, labels]
    results = _tail(model, logits)
    swapped = keras.Model(inputs if len(inputs) > 1 else inputs[0], results, name=model.name)
    _keep_weights(model, swapped)
    return swapped


@contextlib.contextmanager
def _policy_of(tensor: keras.KerasTensor) -> Iterator[None]:
    """New layers have the dtype policy of the layer that made a tensor."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(getattr(tensor._keras_history.operation, "dtype_policy", None) or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _names(model: keras.Model) -> list[str]:
    return [*(call.operation.name for call in calls(model)), *(tensor.name for tensor in model.inputs)]


def _keep_weights(old: keras.Model, new: keras.Model) -> None:
    there = {layer.name: layer for layer in old.layers}
    for layer in new.layers:
        before = there.get(layer.name)
        if is_of_a_head(layer.name) and before is not None and _shapes(before) == _shapes(layer):
            graph.copy_state(before, layer)


def _shapes(layer: keras.layers.Layer) -> list:
    return [type(layer), *(tuple(weight.shape) for weight in layer.weights)]


def _tail(model: keras.Model, logits: keras.KerasTensor) -> keras.KerasTensor:
    """`logits` through copies of what stands behind the last `head_...` layer of `model`."""
    own = [call for call in head_of(model) if is_of_a_head(call.operation.name)]
    if not own or own[-1].outputs[0] is model.outputs[0] or own[-1].outputs[0].shape != logits.shape:
        return logits
    tail = graph.copy(keras.Model(own[-1].outputs[0], model.outputs[0]))
    (results,) = graph.replay(tail, [logits])
    return results


def features_of(model: keras.Model) -> keras.KerasTensor:
    """The tensor that a model's head reads: what the first layer of one of ours does, else `feature_map`."""
    for call in calls(model):
        if is_of_a_head(call.operation.name):
            return call.inputs[0]
    return feature_map(model)


def head_of(model: keras.Model) -> list[graph.Call]:
    """The calls that depend on the features, in order: the head, and what stands behind it."""
    known = {id(features_of(model))}
    found = []
    for call in calls(model):
        if known & set(map(id, call.inputs)):
            known |= set(map(id, call.outputs))
            found.append(call)
    return found


def _first_dense(model: keras.Model) -> str:
    for call in head_of(model):
        if isinstance(call.operation, keras.layers.Dense):
            return call.operation.name
    raise UsageError(f"model {model.name!r} has no Dense behind its features; say what the norm goes before")


def feature_map(model: keras.Model) -> keras.KerasTensor:
    """The tensor of a functional model that a head belongs on: its last feature map, else its last vector.

    Read backwards from the output: where the first tensor that is no vector is a feature map, it is that, or
    the map before a global pooling that kept its axes (1 x 1). Where it is not (a transformer's tokens, the
    image itself), it is what the last Dense layer reads, or the output where that is no Dense layer's.

    Raises:
        UsageError: the net has several inputs or outputs.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(f"backbone {model.name!r} must have one input and one output")
    path = _backwards(model)
    maps = [tensor for tensor, _ in path if len(tensor.shape) != 2]
    if maps and len(maps[0].shape) == 4 and maps[0] is not model.inputs[0]:
        return _before_pooling(path[[tensor for tensor, _ in path].index(maps[0]) :])
    vectors = [call.inputs[0] for _, call in path if call and isinstance(call.operation, keras.layers.Dense)]
    return vectors[0] if vectors and len(vectors[0].shape) == 2 else model.outputs[0]


def _backwards(model: keras.Model) -> list[tuple[keras.KerasTensor, graph.Call | None]]:
    """The tensors from the output back to the input, with the call that made each."""
    made_by = {id(tensor): call for call in calls(model) for tensor in call.outputs}
    path, tensor = [], model.outputs[0]
    while id(tensor) in made_by:
        path.append((tensor, made_by[id(tensor)]))
        tensor = made_by[id(tensor)].inputs[0]
    return [*path, (tensor, None)]


def _before_pooling(path: Sequence[tuple[keras.KerasTensor, graph.Call | None]]) -> keras.KerasTensor:
    """The first tensor on the path, or the one before the global pooling that made it 1 x 1."""
    pooling = keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D
    for (tensor, call), (before, _) in itertools.pairwise(path):
        if tuple(tensor.shape[1:3]) != (1, 1):
            break
        if isinstance(call.operation, pooling):
            return before
    return path[0][0]
