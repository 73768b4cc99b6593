"""Reading and replaying the graph of a functional Keras model.

A layer may be called in several models and several times in one. What counts here are the calls that lie
between one model's inputs and outputs.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from bnhead.errors import UsageError
from bnhead.texts import one_line


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation inside a model.

    Attributes:
        operation: the layer, or the `keras.Operation` behind a function of `keras.ops`.
        arguments: the call's positional arguments, Keras tensors among them.
        keywords: the call's keyword arguments.
        inputs: the Keras tensors among the arguments.
        outputs: the Keras tensors it returned.
    """

    operation: keras.Operation
    arguments: tuple
    keywords: dict[str, Any]
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def calls(model: keras.Model) -> list[Call]:
    """All calls between `model`'s inputs and outputs, each after those it depends on."""
    done = {id(tensor) for tensor in model.inputs}
    order: list[Call] = []
    waiting = list(reversed(model.outputs))
    while waiting:
        tensor = waiting[-1]
        if id(tensor) in done:
            waiting.pop()
            continue
        call = _call_of(tensor)
        missing = [t for t in call.inputs if id(t) not in done]
        if missing:
            waiting.extend(reversed(missing))
            continue
        order.append(call)
        done.update(map(id, call.outputs))
    return order


def _call_of(tensor: keras.KerasTensor) -> Call:
    operation, index, _ = tensor._keras_history
    node = operation._inbound_nodes[index]
    return Call(
        operation,
        node.arguments.args,
        node.arguments.kwargs,
        tuple(node.input_tensors),
        tuple(node.output_tensors),
    )


def replay(
    model: keras.Model,
    inputs: Sequence[keras.KerasTensor],
    perform: Callable[..., Any] = lambda operation, *arguments, **keywords: operation(*arguments, **keywords),
) -> list[keras.KerasTensor]:
    """Repeats `model`'s calls on other inputs and returns the outputs.

    Args:
        model: a functional model.
        inputs: Keras tensors, one for each of the model's.
        perform: `(operation, *arguments, **keywords) -> result`, called in the place of each operation; by
            default the operation itself, so that the new graph shares the model's layers.
    """
    values = dict(zip(map(id, model.inputs), inputs, strict=True))

    def now(argument):
        return values.get(id(argument), argument)

    for call in calls(model):
        arguments, keywords = keras.tree.map_structure(now, (call.arguments, call.keywords))
        results = keras.tree.flatten(perform(call.operation, *arguments, **keywords))
        values.update(zip(map(id, call.outputs), results, strict=True))
    return [values[id(tensor)] for tensor in model.outputs]


Remade = tuple[
    keras.layers.Layer, list[np.ndarray] | keras.layers.Layer
]  # a layer, and where its state comes from


def same(layer: keras.layers.Layer) -> Remade:
    """A new layer with `layer`'s config, and `layer` for its state.

    Raises:
        UsageError: the layer's config does not make one, as where `get_config` leaves an argument out.
    """
    if type(layer) is keras.layers.Lambda:  # its function is at hand, and would be refused from a config
        shared = {"arguments": layer.arguments, "name": layer.name, "dtype": layer.dtype_policy}
        return keras.layers.Lambda(layer.function, layer._output_shape, layer.mask, **shared), []
    try:
        return type(layer).from_config(layer.get_config()), layer
    except (TypeError, ValueError, KeyError, NotImplementedError) as error:
        kind = f"layer {layer.name!r} ({type(layer).__name__})"
        raise UsageError(
            f"{kind} cannot be copied, its config does not make one: {one_line(str(error))}"
        ) from error


def copy_state(source: keras.layers.Layer, target: keras.layers.Layer, *, frozen: bool = False) -> None:
    """Gives a layer all state of another of the same config: weights, and what it has made of them.

    It goes the way of a saved file, through each layer's own store. `set_weights` is not enough: an adapted
    `Normalization` would keep its old mean, and a layer with LoRA has other weights than its config says.

    Args:
        source: a built layer or model.
        target: a built one, of the same layers.
        frozen: whether layers that are frozen in the one, also inside it, become so in the other.
    """
    parts = (list(side._flatten_layers(include_self=True, recursive=True)) for side in (source, target))
    for one, other in zip(*parts, strict=True):
        store: dict[str, Any] = {}
        one.save_own_variables(store)
        other.load_own_variables(store)
        if frozen:
            other.trainable = one.trainable


@dataclass(frozen=True)
class Flat:
    """A functional model without nested ones, made of another model's layers.

    Attributes:
        model: the flat model.
        paths: name of each operation in `model` -> its path in the original, such as `"encoder/conv"`.
        originals: name -> layer of the original. Where two layers of the original share a name, `model` has
            copies of them, called by their paths (`"encoder_conv"`); every other layer is the original's.
    """

    model: keras.Model
    paths: dict[str, str]
    originals: dict[str, keras.Operation]

    def name(self, text: str) -> str:
        """The name in `model` of what `text`, a path or a name, stands for; `text` itself if nothing."""
        return next((name for name, path in self.paths.items() if path == text), text)


def flattened(model: keras.Model) -> Flat:
    """A model's layers, those of nested functional models among them, in one functional model.

    Raises:
        UsageError: a subclassed model, one that is not built, or one of another Keras.
    """
    require_keras(model)
    graph = functional(model)
    if graph is None or not graph.inputs:
        raise UsageError(f"model {model.name!r} must be a built functional or Sequential model")
    paths = {id(operation): (path, operation) for path, operation in _operations(graph, "")}
    uses = Counter(operation.name for _, operation in paths.values())
    taken = {*uses, *(tensor.name for tensor in graph.inputs)}
    now: dict[int, keras.Operation] = {}  # id of an original -> what stands for it in the flat model
    flat = Flat(model, {}, {})
    for key, (path, operation) in paths.items():
        if uses[operation.name] > 1:
            name = free_name(path.replace("/", "_"), taken)
            taken.add(name)
            now[key] = _renamed(operation, name)
        else:
            now[key] = operation
        flat.paths[now[key].name] = path
        flat.originals[now[key].name] = operation
    if graph is model and not any(nested(call) for call in calls(model)):
        return flat
    inputs = new_inputs(graph)
    outputs = keras.tree.pack_sequence_as(graph._outputs_struct, _inline(graph, inputs, now))
    structure = keras.tree.pack_sequence_as(graph._inputs_struct, inputs)
    try:
        made = keras.Model(structure, outputs, name=model.name)
    except ValueError as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"model {model.name!r} cannot be taken apart: {first}") from error
    for key, (_, operation) in paths.items():
        if now[key] is not operation and isinstance(operation, keras.layers.Layer):
            copy_state(operation, now[key], frozen=True)
    return replace(flat, model=made)


def inlined(model: keras.Model) -> keras.Model:
    """`flattened(model).model`; a model without nested ones is returned as it is."""
    return flattened(model).model


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or the first of `name_2`, `name_3`, ... that is not taken."""
    names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
    return next(free for free in names if free not in taken)


def _operations(graph: Any, prefix: str) -> Iterator[tuple[str, keras.Operation]]:
    """Path and operation of each call, nested models taken apart."""
    for call in calls(graph):
        inside, path = nested(call), prefix + call.operation.name
        if inside is None:
            yield path, call.operation
        else:
            yield from _operations(inside, f"{path}/")


def _renamed(operation: keras.Operation, name: str) -> keras.Operation:
    """A new operation with another's config, under another name; a layer is not built yet."""
    layer = isinstance(operation, keras.layers.Layer)
    made = same(operation)[0] if layer else type(operation).from_config(operation.get_config())
    made.name = name
    return made


def _inline(
    graph: Any, inputs: Sequence[keras.KerasTensor], now: dict[int, keras.Operation]
) -> list[keras.KerasTensor]:
    inside_of = {id(call.operation): inside for call in calls(graph) if (inside := nested(call)) is not None}

    def perform(operation, *arguments, **keywords):
        inside = inside_of.get(id(operation))
        if inside is None:
            return now[id(operation)](*arguments, **keywords)
        results = _inline(inside, flat_inputs(inside, arguments[0]), now)
        return keras.tree.pack_sequence_as(inside._outputs_struct, results)

    return replay(graph, inputs, perform)


def copy(
    model: keras.Model,
    remake: Callable[[keras.layers.Layer], Remade | None] = same,
    *,
    perform: Callable[..., Any] = lambda layer, *arguments, **keywords: layer(*arguments, **keywords),
    name: str | None = None,
) -> keras.Model:
    """A copy of a functional model with layers and weights of its own.

    Args:
        model: a functional model; it is left as it is.
        remake: what takes a layer's place, with its weights or the layer whose state it gets; None leaves the
            layer out, and what it read (its first argument) passes. An input that nothing reads any more is
            left out too.
        perform: `(copied layer, *arguments, **keywords) -> result`, by default the call itself.
        name: the copy's name; None for the model's.
    """
    made: dict[str, Remade | None] = {}

    def call(operation, *arguments, **keywords):
        if not isinstance(operation, keras.layers.Layer):
            return operation(*arguments, **keywords)
        if operation.name not in made:
            made[operation.name] = remake(operation)
        remade = made[operation.name]
        return arguments[0] if remade is None else perform(remade[0], *arguments, **keywords)

    inputs = new_inputs(model)
    results = replay(model, inputs, call)
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, results)
    copied = keras.Model(used_inputs(model, inputs, outputs), outputs, name=name or model.name)
    for remade in made.values():
        if remade is None:
            continue
        if isinstance(remade[1], keras.layers.Layer):
            copy_state(remade[1], remade[0], frozen=True)
        else:
            remade[0].set_weights(remade[1])
    return copied


def new_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """Input tensors like `model`'s."""
    return [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name, optional=_is_optional(t))
        for t in model.inputs
    ]


def used_inputs(model: keras.Model, inputs: Sequence[keras.KerasTensor], outputs: Any) -> Any:
    """Those of `inputs`, which stand for `model`'s, that `outputs` depend on.

    Structured as `model` takes them where none has gone, else one tensor or a list.
    """
    reached = _ancestors(keras.tree.flatten(outputs))
    used = [tensor for tensor in inputs if id(tensor) in reached]
    if len(used) == len(model.inputs):
        return keras.tree.pack_sequence_as(model._inputs_struct, used)
    return used if len(used) > 1 else used[0]


def _ancestors(tensors: Sequence[keras.KerasTensor]) -> set[int]:
    """The ids of `tensors` and of all tensors they were computed from."""
    seen, waiting = set(), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.extend(_call_of(tensor).inputs)
    return seen


def _is_optional(tensor: keras.KerasTensor) -> bool:
    return getattr(tensor._keras_history.operation, "optional", False)


def require_keras(model: Any) -> None:
    """Raises UsageError for what is no model of this Keras, such as one of tf_keras or of PyTorch."""
    if isinstance(model, keras.Layer):
        return
    homes = [kind.__module__ for kind in type(model).__mro__]
    other = next((home for home in homes if home.startswith(("tf_keras", "tensorflow.python.keras"))), "")
    if other:
        package = "tf_keras" if other.startswith("tf_keras") else "tensorflow.python.keras"
        raise UsageError(
            f"model {getattr(model, 'name', '')!r} is of another Keras ({package}); build it with keras "
            f"{keras.__version__}, which bnhead uses"
        )
    raise UsageError(f"model must be a Keras model, got {type(model).__module__}.{type(model).__qualname__}")


def functional(model: Any) -> Functional | None:
    """The functional graph behind a model, a Sequential model's too; None where `call` is code of its own."""
    graph = getattr(model, "_functional", None) or model  # what a Sequential model runs once it is built
    return graph if isinstance(graph, Functional) and type(graph).call is Functional.call else None


def nested(call: Call) -> Functional | None:
    """The functional graph that a call with one argument runs, in evaluation mode; None for others."""
    graph = functional(call.operation)
    plain = len(call.arguments) == 1 and not call.keywords.get("training")
    return graph if plain and set(call.keywords) <= {"training", "mask"} else None


def flat_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """Inputs in any structure that a functional model takes, as a list with a tensor or None for each."""
    return functional(model)._standardize_inputs(inputs)
