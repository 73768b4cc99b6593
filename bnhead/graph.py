"""Reading and replaying the graph of a functional Keras model.

A layer may be called in several models and several times in one. What counts here are the calls that lie
between one model's inputs and outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras


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
