"""Copies of functional Keras models with layers replaced, removed or inlined.

`keras.models.clone_model` cannot do this: it recompiles a compiled model, drops `optional` from inputs,
refuses a `call_function` for Sequential models, retains inputs without a reader, copies no state, and its
`clone_function` cannot remove a layer.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from bnhead.errors import UsageError
from bnhead.graph.calls import flat_inputs, functional, model_calls, nested, producer, require_keras
from bnhead.texts import one_line


def _call(operation: keras.Operation, *arguments, **keywords) -> Any:
    return operation(*arguments, **keywords)


def replay(
    model: keras.Model, inputs: Sequence[keras.KerasTensor], perform: Callable[..., Any] = _call
) -> list[keras.KerasTensor]:
    """Repeats `model`'s calls on other inputs and returns the outputs.

    Args:
        model: a functional model.
        inputs: Keras tensors, one for each input of the model.
        perform: `(operation, *arguments, **keywords) -> result`, replaces each call; by default the call
            itself, so that the new graph shares the model's layers.
    """
    values = dict(zip(map(id, model.inputs), inputs, strict=True))

    def substitute(argument):
        return values.get(id(argument), argument)

    for call in model_calls(model):
        arguments, keywords = keras.tree.map_structure(substitute, (call.arguments, call.keywords))
        results = keras.tree.flatten(perform(call.operation, *arguments, **keywords))
        values.update(zip(map(id, call.outputs), results, strict=True))
    return [values[id(tensor)] for tensor in model.outputs]


# A new layer, and its weights or the layer whose state it gets.
LayerAndState = tuple[keras.layers.Layer, list[np.ndarray] | keras.layers.Layer]


def clone_layer(layer: keras.layers.Layer) -> LayerAndState:
    """A new layer with `layer`'s config, and `layer` as the source of its state.

    Raises:
        UsageError: the config does not make a layer, for example because `get_config` omits an argument.
    """
    if type(layer) is keras.layers.Lambda:  # Keras refuses to deserialise the function of a Lambda
        options = {"arguments": layer.arguments, "name": layer.name, "dtype": layer.dtype_policy}
        return keras.layers.Lambda(layer.function, layer._output_shape, layer.mask, **options), []
    try:
        return type(layer).from_config(layer.get_config()), layer
    except (TypeError, ValueError, KeyError, NotImplementedError) as error:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied, its config does not make one: "
            f"{one_line(str(error))}"
        ) from error


def copy_state(source: keras.layers.Layer, target: keras.layers.Layer, *, frozen: bool = False) -> None:
    """Copies all state of a layer to another of the same config: weights, and values derived from them.

    Each layer saves and loads its variables, as for a file. `set_weights` is not enough: an adapted
    `Normalization` would keep its old mean, and LoRA adds weights that the config does not mention.

    Args:
        source: a built layer or model.
        target: a built one with the same layers.
        frozen: whether to copy `trainable` of each layer too, also of layers inside `source`.
    """
    pairs = (list(side._flatten_layers(include_self=True, recursive=True)) for side in (source, target))
    for source_layer, target_layer in zip(*pairs, strict=True):
        store: dict[str, Any] = {}
        source_layer.save_own_variables(store)
        target_layer.load_own_variables(store)
        if frozen:
            target_layer.trainable = source_layer.trainable


def copy(
    model: keras.Model,
    remake: Callable[[keras.layers.Layer], LayerAndState | None] = clone_layer,
    *,
    perform: Callable[..., Any] = _call,
    name: str | None = None,
    more_inputs: Sequence[keras.KerasTensor] = (),
) -> keras.Model:
    """A copy of a functional model with separate layers and weights.

    Args:
        model: a functional model, which does not change.
        remake: returns the replacement of a layer, with its weights or the layer whose state it gets. None
            removes the layer and passes on its first argument. Inputs without a reader are removed too.
        perform: `(copied layer, *arguments, **keywords) -> result`, by default the call itself.
        name: the name of the copy; None for the model's.
        more_inputs: inputs that `perform` reads too; the copy's inputs are then a list that ends with these.
    """
    clones: dict[str, LayerAndState | None] = {}

    def call(operation, *arguments, **keywords):
        if not isinstance(operation, keras.layers.Layer):
            return operation(*arguments, **keywords)
        if operation.name not in clones:
            clones[operation.name] = remake(operation)
        clone = clones[operation.name]
        return arguments[0] if clone is None else perform(clone[0], *arguments, **keywords)

    inputs = new_inputs(model)
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, replay(model, inputs, call))
    used = used_inputs(model, inputs, outputs)
    used = [*keras.tree.flatten(used), *more_inputs] if more_inputs else used
    copied = keras.Model(used, outputs, name=name or model.name)
    for layer, state in filter(None, clones.values()):  # only now: the calls have built the layers
        if isinstance(state, keras.layers.Layer):
            copy_state(state, layer, frozen=True)
        else:
            layer.set_weights(state)
    return copied


def new_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """Input tensors with the shapes, dtypes and names of `model`'s."""
    return [
        keras.Input(
            batch_shape=tensor.shape,
            dtype=tensor.dtype,
            name=tensor.name,
            optional=getattr(tensor._keras_history.operation, "optional", False),
        )
        for tensor in model.inputs
    ]


def used_inputs(model: keras.Model, inputs: Sequence[keras.KerasTensor], outputs: Any) -> Any:
    """The tensors of `inputs`, replacements of `model`'s, that `outputs` depend on.

    In the structure that `model` takes if all are used, else one tensor or a list.
    """
    reached, pending = set(), keras.tree.flatten(outputs)
    while pending:
        tensor = pending.pop()
        if id(tensor) not in reached:
            reached.add(id(tensor))
            pending.extend(producer(tensor).inputs)
    used = [tensor for tensor in inputs if id(tensor) in reached]
    if len(used) == len(model.inputs):
        return keras.tree.pack_sequence_as(model._inputs_struct, used)
    return used if len(used) > 1 else used[0]


@dataclass(frozen=True)
class Flat:
    """A functional model without nested models, made of another model's layers.

    Attributes:
        model: the flat model.
        paths: name of each operation in `model` -> its path in the original, such as `"encoder/conv"`.
        originals: name -> layer of the original. If two layers of the original share a name, `model` has
            copies of them, named after their paths (`"encoder_conv"`); every other layer is the original's.
    """

    model: keras.Model
    paths: dict[str, str]
    originals: dict[str, keras.Operation]

    def name(self, text: str) -> str:
        """The name in `model` of the operation with path `text`; `text` itself if there is none."""
        return next((name for name, path in self.paths.items() if path == text), text)

    def original_name(self, name: str) -> str:
        """The name of an operation of `model` in the original; its path if nested models share the name."""
        return name if self.originals[name].name == name else self.paths[name]


def flattened(model: keras.Model) -> Flat:
    """A model's layers, including those of nested functional models, in one functional model.

    Raises:
        UsageError: a subclassed model, one that is not built, or one of another library.
    """
    require_keras(model)
    graph = functional(model)
    if graph is None or not graph.inputs:
        raise UsageError(f"model {model.name!r} must be a built functional or Sequential model")
    paths = {id(operation): (path, operation) for path, operation in _operation_paths(graph, "")}
    uses = Counter(operation.name for _, operation in paths.values())
    names = {*uses, *(tensor.name for tensor in graph.inputs)}
    substitutes: dict[int, keras.Operation] = {}  # id of an original -> its operation in the flat model
    flat = Flat(model, {}, {})
    for key, (path, operation) in paths.items():
        substitute = operation
        if uses[operation.name] > 1:  # a functional model needs unique names
            if isinstance(operation, keras.layers.Layer):
                substitute, _ = clone_layer(operation)
            else:
                substitute = type(operation).from_config(operation.get_config())
            substitute.name = free_name(path.replace("/", "_"), names)  # before the layer is built
            names.add(substitute.name)
        substitutes[key] = substitute
        flat.paths[substitute.name] = path
        flat.originals[substitute.name] = operation
    if graph is model and not any(nested(call) for call in model_calls(model)):
        return flat
    inputs = new_inputs(graph)
    outputs = keras.tree.pack_sequence_as(graph._outputs_struct, _inline(graph, inputs, substitutes))
    structure = keras.tree.pack_sequence_as(graph._inputs_struct, inputs)
    try:
        flat_model = keras.Model(structure, outputs, name=model.name)
    except ValueError as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"model {model.name!r} cannot be taken apart: {first}") from error
    for key, (_, operation) in paths.items():
        if substitutes[key] is not operation and isinstance(operation, keras.layers.Layer):
            copy_state(operation, substitutes[key], frozen=True)
    return replace(flat, model=flat_model)


def inlined(model: keras.Model) -> keras.Model:
    """`flattened(model).model`; a model without nested models is returned itself."""
    return flattened(model).model


def free_name(name: str, names: Container[str]) -> str:
    """`name`, or the first of `name_2`, `name_3`, ... that is not in `names`."""
    candidates = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in names)


def _operation_paths(graph: Any, prefix: str) -> Iterator[tuple[str, keras.Operation]]:
    """Path and operation of each call, those of nested models included."""
    for call in model_calls(graph):
        inner, path = nested(call), prefix + call.operation.name
        if inner is None:
            yield path, call.operation
        else:
            yield from _operation_paths(inner, f"{path}/")


def _inline(
    graph: Any, inputs: Sequence[keras.KerasTensor], substitutes: dict[int, keras.Operation]
) -> list[keras.KerasTensor]:
    """`replay` with nested models inlined and each operation replaced by its substitute."""
    graphs = {id(call.operation): inner for call in model_calls(graph) if (inner := nested(call)) is not None}

    def perform(operation, *arguments, **keywords):
        inner = graphs.get(id(operation))
        if inner is None:
            return substitutes[id(operation)](*arguments, **keywords)
        results = _inline(inner, flat_inputs(inner, arguments[0]), substitutes)
        return keras.tree.pack_sequence_as(inner._outputs_struct, results)

    return replay(graph, inputs, perform)
