"""Reading the head of an existing model, and changing it: folding its norms, inserting one, swapping it."""

import re
from typing import Any, NamedTuple

import keras
import numpy as np

from bnhead import graph
from bnhead.errors import UsageError, nearest
from bnhead.graph import agreement, model_calls
from bnhead.heads.build import label_input
from bnhead.heads.grammar import Head, Token, parse, spell
from bnhead.heads.tokens import TOKENS
from bnhead.layers import ClassConditionalDropout, batch_norm, fold_batch_norm, recompute_batch_stats

_LAYER_NAME = re.compile(r"head_([a-z0-9]+?)(_\d+)?")
_CATPOOL_PARTS = ("head_catpool_max", "head_catpool_average")


# ---- reading ------------------------------------------------------------------------------------


def read(model: keras.Model) -> str:
    """The text of a model's head with all numbers, read from the names and settings of its layers.

    For `model = resnet20(shape, head="bn_fc", outputs=10)` it is `"bn_fc256"`. A text does not contain the
    activation of `fc` or the weights.

    Raises:
        ValueError: the model's head was not built by bnhead.heads.
    """
    tokens = []
    for call in head_calls(model):
        layer = call.operation
        if layer.name in _CATPOOL_PARTS:
            continue
        token_type = TOKENS[_LAYER_NAME.fullmatch(layer.name)[1]]
        if token_type.normalises_batch and type(layer).__module__.startswith("keras."):
            token_type = TOKENS["bn"]  # `bnhead.layers.plain` replaces every batch norm by Keras' own
        number = getattr(layer, token_type.number.attribute) if token_type.number else None
        left_out = {
            part
            for part, settings in token_type.parts.items()
            if all(getattr(layer, name) == value for name, value in settings.items())
        }
        tokens.append(Token(token_type, number, frozenset(left_out)))
    if not any(t.name == "out" for t in tokens):
        raise ValueError(
            f"model {model.name!r} has no layer called head_out: its head was not built by bnhead.heads"
        )
    return spell(tokens)


def feature_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Shape, without the batch axis, of the features that `model`'s head reads.

    Raises:
        ValueError: the model has no layer called `head_...`.
    """
    return tuple(head_calls(model)[0].inputs[0].shape[1:])


def head_calls(model: keras.Model) -> list[graph.Call]:
    """The calls of the layers that `apply` made, recognised by their names, in order.

    Raises:
        ValueError: there are none.
    """
    head = [call for call in model_calls(model) if is_of_a_head(call.operation.name)]
    if not head:
        raise ValueError(
            f"model {model.name!r} has no layer called head_...: it was not built by bnhead.heads"
        )
    return head


def is_of_a_head(name: str) -> bool:
    """Whether `apply` gives layers this name: `head_<token>` or `head_<token>_2`."""
    match = _LAYER_NAME.fullmatch(name)
    return bool(match and match[1] in TOKENS) or name in _CATPOOL_PARTS


def features_of(model: keras.Model) -> keras.KerasTensor:
    """The tensor that a model's head reads: the input of its first `head_...` layer, else `feature_map`."""
    for call in model_calls(model):
        if is_of_a_head(call.operation.name):
            return call.inputs[0]
    return feature_map(model)


def feature_map(model: keras.Model) -> keras.KerasTensor:
    """The tensor of a functional model to put a head on: its last feature map, else its last vector.

    Going back from the output, take the first tensor that is not a vector. If it is a feature map, the result
    is this map, or the map before a global pooling that kept its axes (1 x 1). Otherwise (a transformer's
    tokens, the image itself) the result is the vector that the last Dense layer reads, or the output if there
    is none.

    Raises:
        UsageError: the net has several inputs or outputs.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(f"backbone {model.name!r} must have one input and one output")
    producers = {id(tensor): call for call in model_calls(model) for tensor in call.outputs}
    path, tensor = (
        [],
        model.outputs[0],
    )  # tensors from the output back to the input, and the calls that made them
    while call := producers.get(id(tensor)):
        path.append((tensor, call))
        tensor = call.inputs[0]
    # Going back from the output, this is the first tensor that is not a vector.
    last_map = next((i for i, (tensor, _) in enumerate(path) if len(tensor.shape) != 2), None)
    if last_map is not None and len(path[last_map][0].shape) == 4:
        for tensor, call in path[last_map:]:  # from a map of 1 x 1 back to the pooling that made it
            if tuple(tensor.shape[1:3]) != (1, 1):
                break
            if isinstance(
                call.operation, keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D
            ):
                return call.inputs[0]
        return path[last_map][0]
    read_by_dense = (call.inputs[0] for _, call in path if isinstance(call.operation, keras.layers.Dense))
    vector = next(read_by_dense, model.outputs[0])
    return vector if len(vector.shape) == 2 else model.outputs[0]


# ---- changing -----------------------------------------------------------------------------------


def inference(model: keras.Model) -> keras.Model:
    """`model` without its label input: images in, logits out, with the same layers and weights.

    A model that does not read labels is returned unchanged.
    """
    if not any(isinstance(layer, ClassConditionalDropout) for layer in model.layers):
        return model

    def skip_dropout(operation, *arguments, **keywords):
        skips = isinstance(operation, ClassConditionalDropout)
        return arguments[0] if skips else operation(*arguments, **keywords)

    inputs = graph.new_inputs(model)
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, graph.replay(model, inputs, skip_dropout))
    return keras.Model(graph.used_inputs(model, inputs, outputs), outputs, name=model.name)


class Folded(NamedTuple):
    """The result of `fold`.

    Attributes:
        model: the folded copy.
        difference: the largest absolute difference of an output, divided by the largest absolute output if
            that is above 1.
    """

    model: keras.Model
    difference: float


def fold(model: keras.Model, data: Any = None) -> Folded:
    """Merges the batch norms of a model's head into the neighbouring Dense layers, for inference.

    A norm on the pooled features (P1), or between the FC and the output (P2), is merged into the next Dense
    layer, one on the logits (P3) into the output layer, and one before average pooling (P0) through the
    pooling. This includes centring, scaling, frozen, ghost and renorm layers. For the norms of the backbone
    see `bnhead.layers.fold_batch_norm`.

    Args:
        model: a functional model with a head of `bnhead.heads`, or any classifier; it is not changed.
        data: an array of inputs to compare outputs on; None for 64 inputs of standard normal numbers.
    """
    original = graph.inlined(model)
    model = inference(original)
    folded = fold_batch_norm(model, [call.operation.name for call in calls_after_features(model)])
    inputs = (
        next(agreement.random_inputs(model, pixels=False, examples=64))
        if data is None
        else agreement.select_inputs(original, model, data)
    )
    expected, results = (agreement.outputs(m, inputs) for m in (model, folded))
    difference = max(np.abs(a - b).max() for a, b in zip(expected, results, strict=True))
    return Folded(folded, float(difference / max(1.0, *(np.abs(array).max() for array in expected))))


def insert_bn(
    model: keras.Model, data: Any, before: str | None = None, *, batch_size: int = 256
) -> keras.Model:
    """A copy of a trained model with a batch norm in its head that does not change the outputs yet.

    The norm has the statistics m and v of its input on `data`. With gamma = sqrt(v + epsilon) and beta = m it
    is the identity in evaluation mode, up to rounding. Training then changes it.

    Args:
        model: a functional model with a head of `bnhead.heads`, or any classifier; it is not changed.
        data: inputs to measure the statistics on, training data, as for `recompute_batch_stats`.
        before: name of the layer to put the norm before, or its path (`"encoder/conv"`) if nested models have
            several layers of that name; None for the first Dense after the features (P1).
        batch_size: inputs at a time, if `data` is arrays.

    Raises:
        UsageError: no such layer, no Dense, or a layer that is called more than once or has several inputs.
        CopyError: the copy's outputs differ from the model's.
    """
    flat = graph.flattened(model)
    model = flat.model
    target = _call_to_precede(model, flat.name(before) if before else None).operation.name
    name = graph.free_name("head_bn", _used_names(model))

    def insert(layer, *arguments, **keywords):
        if layer.name == target:
            arguments = batch_norm(name, dtype=layer.dtype_policy)(arguments[0]), *arguments[1:]
        return layer(*arguments, **keywords)

    copied = graph.copy(model, perform=insert)
    recompute_batch_stats(copied, data, [name], batch_size=batch_size)
    norm = copied.get_layer(name)  # still a standardisation; gamma and beta undo it
    norm.gamma.assign(keras.ops.sqrt(norm.moving_variance + norm.epsilon))
    norm.beta.assign(keras.ops.copy(norm.moving_mean))  # JAX donates both to a training step
    graph.require_agreement(model, copied)
    return copied


def _call_to_precede(model: keras.Model, layer: str | None) -> graph.Call:
    """The only call of a layer; of the first Dense after the features if `layer` is None."""
    if layer is None:
        dense = (c for c in calls_after_features(model) if isinstance(c.operation, keras.layers.Dense))
        first = next(dense, None)
        if first is None:
            raise UsageError(f"before: model {model.name!r} has no Dense after its features; name the layer")
        layer = first.operation.name
    all_calls = model_calls(model)
    names = [call.operation.name for call in all_calls]
    if layer not in names:
        raise UsageError(f"before: layer {layer!r} is not in model {model.name!r}{nearest(layer, names)}")
    if names.count(layer) > 1:
        raise UsageError(f"before: layer {layer!r} is called more than once in model {model.name!r}")
    call = all_calls[names.index(layer)]
    reads_one_tensor = len(call.inputs) == 1 and call.arguments and call.arguments[0] is call.inputs[0]
    if not isinstance(call.operation, keras.layers.Layer) or not reads_one_tensor:
        raise UsageError(f"before: {layer!r} must be a layer that reads one tensor, as its first argument")
    return call


def swap(
    model: keras.Model, head: str | Head, outputs: int | None = None, *, seed: int | None = None, **options
) -> keras.Model:
    """A copy of a model with another head on the same backbone.

    The backbone keeps its weights. So do layers of the head that the old head has with the same name and
    shapes: from `fc` to `bn_fc`, `head_fc` and `head_out` keep theirs. Layers after a head of `bnhead.heads`
    (such as a scaling of the outputs) stay if the number of outputs does. Any other classifier is removed
    with all layers after it, so the new model returns logits. The new head has the backbone's precision.

    Args:
        model: any functional model; it is not changed.
        head: the new head.
        outputs: number of outputs; None for as many as now.
        seed: seed of the new head's random streams.
        options: other keyword arguments of `bnhead.heads.apply`.

    Raises:
        CopyError: the features of the copied backbone differ from the model's.
    """
    head, model = parse(head), inference(graph.inlined(model))
    features = features_of(model)
    original = keras.Model(graph.used_inputs(model, model.inputs, features), features, name=model.name)
    backbone = graph.copy(original)
    graph.require_agreement(original, backbone)
    outputs = model.outputs[0].shape[-1] if outputs is None else outputs
    labels = label_input(head, graph.free_name("label", _used_names(backbone)))
    # `apply` makes layers of the global precision, so set it to the backbone's for the new head.
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(getattr(features._keras_history.operation, "dtype_policy", None) or policy)
    try:
        logits = head.apply(backbone.outputs[0], outputs, labels=labels, seed=seed, **options)
    finally:
        keras.config.set_dtype_policy(policy)
    inputs = backbone.inputs if labels is None else [*backbone.inputs, labels]
    swapped = keras.Model(
        inputs if len(inputs) > 1 else inputs[0], _with_tail_of(model, logits), name=model.name
    )
    old_layers = {layer.name: layer for layer in model.layers}
    for layer in swapped.layers:
        old = old_layers.get(layer.name)
        if is_of_a_head(layer.name) and old is not None and _type_and_shapes(old) == _type_and_shapes(layer):
            graph.copy_state(old, layer)
    return swapped


def _with_tail_of(model: keras.Model, logits: keras.KerasTensor) -> keras.KerasTensor:
    """`logits` passed through copies of the layers after the last `head_...` layer of `model`."""
    head = [call for call in calls_after_features(model) if is_of_a_head(call.operation.name)]
    if not head or head[-1].outputs[0] is model.outputs[0] or head[-1].outputs[0].shape != logits.shape:
        return logits
    tail = graph.copy(keras.Model(head[-1].outputs[0], model.outputs[0]))
    return graph.replay(tail, [logits])[0]


def _used_names(model: keras.Model) -> list[str]:
    return [*(call.operation.name for call in model_calls(model)), *(tensor.name for tensor in model.inputs)]


def _type_and_shapes(layer: keras.layers.Layer) -> list:
    return [type(layer), *(tuple(weight.shape) for weight in layer.weights)]


def calls_after_features(model: keras.Model) -> list[graph.Call]:
    """The calls that depend on the features, in order: the head, and the layers after it."""
    reached, dependent = {id(features_of(model))}, []
    for call in model_calls(model):
        if reached & set(map(id, call.inputs)):
            reached |= set(map(id, call.outputs))
            dependent.append(call)
    return dependent
