"""The calls of a functional model as plain data: which layer reads which, nested models taken apart."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

from bnhead.graph.calls import Call, functional, nested


class Step(NamedTuple):
    """One call of a layer or operation.

    Attributes:
        name: its path, `encoder/conv` inside the nested model `encoder`; `conv#2` for a second call.
        kind: name of its class, such as "Conv2D".
        inputs: indices of the steps that it reads; an input of the model is a step that reads none.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]


def steps_of(model: keras.Model) -> list[Step]:
    """The steps from the inputs of a functional or Sequential model to its outputs, in order of execution.

    A nested model that is called with a single argument is taken apart; any other is one step. A model with
    a `call` of its author's has no recorded calls, and so no steps.
    """
    graph = functional(model)
    if graph is None or not getattr(graph, "inputs", None):
        return []
    steps: list[Step] = []
    calls: Counter = Counter()

    def add(name: str, kind: str, inputs: Sequence[int]) -> int:
        calls[name] += 1
        numbered = name if calls[name] == 1 else f"{name}#{calls[name]}"
        steps.append(Step(numbered, kind, tuple(sorted(set(inputs)))))
        return len(steps) - 1

    def walk(inner: Any, producers: dict[int, int], prefix: str) -> None:
        for call in _executed(inner):
            path = prefix + call.operation.name
            if (deeper := nested(call)) is not None:
                arguments = _matched(deeper, call.arguments[0])
                read = [None if tensor is None else producers.get(id(tensor)) for tensor in arguments]
                pairs = zip(map(id, deeper.inputs), read, strict=True)
                inside = {key: index for key, index in pairs if index is not None}
                walk(deeper, inside, f"{path}/")
                indices = [inside[id(tensor)] for tensor in deeper.outputs]
            else:
                read = [producers[id(tensor)] for tensor in call.inputs if id(tensor) in producers]
                indices = [add(path, type(call.operation).__name__, read)] * len(call.outputs)
            producers.update(zip(map(id, call.outputs), indices, strict=True))

    walk(graph, {id(tensor): add(tensor.name, "Input", ()) for tensor in graph.inputs}, "")
    return steps


def _matched(graph: Any, argument: Any) -> list[Any]:
    """The caller's tensors in the order of a nested model's inputs; `calls.flat_inputs` converts them."""
    if isinstance(argument, dict) and not isinstance(graph._inputs_struct, dict):
        return [argument[tensor.name] for tensor in graph.inputs]
    return keras.tree.flatten(argument)


def _executed(graph: Any) -> Iterator[Call]:
    """The calls of a functional graph in the order in which Keras runs them, which numbers repeated calls."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                arguments = node.arguments
                tensors = tuple(node.input_tensors), tuple(node.output_tensors)
                yield Call(node.operation, arguments.args, arguments.kwargs, *tensors)
