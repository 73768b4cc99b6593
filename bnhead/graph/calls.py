"""The recorded calls of a functional Keras model.

A layer may be called in several models and several times in one. Only the calls between one model's inputs
and outputs count here.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras.src.models.functional import Functional

from bnhead.errors import UsageError


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation in a model.

    Attributes:
        operation: the layer, or the `keras.Operation` of a function of `keras.ops`.
        arguments: positional arguments, Keras tensors among them.
        keywords: keyword arguments.
        inputs: the Keras tensors among the arguments.
        outputs: the Keras tensors it returned.
    """

    operation: keras.Operation
    arguments: tuple
    keywords: dict[str, Any]
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def model_calls(model: keras.Model) -> list[Call]:
    """All calls between `model`'s inputs and outputs, in an order in which they can run."""
    computed = {id(tensor) for tensor in model.inputs}
    order: list[Call] = []
    pending = list(reversed(model.outputs))
    while pending:
        tensor = pending[-1]
        if id(tensor) in computed:
            pending.pop()
            continue
        call = producer(tensor)
        missing = [t for t in call.inputs if id(t) not in computed]
        if missing:
            pending.extend(reversed(missing))
            continue
        order.append(call)
        computed.update(map(id, call.outputs))
    return order


def calls_as(layer: keras.Operation, classes: tuple[type, ...]) -> bool:
    """Whether a layer computes as one of `classes`: a subclass may override `call`."""
    return any(isinstance(layer, cls) and type(layer).call is cls.call for cls in classes)


def producer(tensor: keras.KerasTensor) -> Call:
    """The call that returned a Keras tensor."""
    operation, index, _ = tensor._keras_history
    node = operation._inbound_nodes[index]
    arguments = node.arguments
    inputs, outputs = tuple(node.input_tensors), tuple(node.output_tensors)
    return Call(operation, arguments.args, arguments.kwargs, inputs, outputs)


def require_keras(model: Any) -> None:
    """Raises UsageError for a model of another library, such as tf_keras or PyTorch."""
    if isinstance(model, keras.Layer):
        return
    for module in (cls.__module__ for cls in type(model).__mro__):
        for package in ("tf_keras", "tensorflow.python.keras"):
            if module.startswith(package):
                raise UsageError(
                    f"model {getattr(model, 'name', '')!r} is of another Keras ({package}); build it with "
                    f"keras {keras.__version__}, which bnhead uses"
                )
    raise UsageError(f"model must be a Keras model, got {type(model).__module__}.{type(model).__qualname__}")


def functional(model: Any) -> Functional | None:
    """The functional graph that a model runs, also a Sequential model; None if it overrides `call`."""
    graph = (
        getattr(model, "_functional", None) or model
    )  # a Sequential model builds a functional one and runs it
    return graph if isinstance(graph, Functional) and type(graph).call is Functional.call else None


def nested(call: Call) -> Functional | None:
    """The functional graph that a call runs; None if `call` is not one of a nested model in inference mode.

    A call with several arguments or a user's keyword cannot be inlined and gives None too.
    """
    graph = functional(call.operation)
    is_plain = len(call.arguments) == 1 and not call.keywords.get("training")
    return graph if is_plain and set(call.keywords) <= {"training", "mask"} else None


def flat_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """A functional model's inputs, in any structure that it accepts, as a list; None for an omitted one."""
    return functional(model)._standardize_inputs(inputs)
