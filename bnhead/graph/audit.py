"""Activations in the traced program that no tap recorded."""

import re
from typing import Any

from bnhead.graph.taps import LAYER_MARK, MARK, RECURRENT_MARK, Taps

_OPERATIONS = {"Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus"}  # of TensorFlow
_FUNCTIONS = {"relu", "relu6", "silu", "elu", "selu", "leaky_relu", "gelu"}  # of jax.nn
_RECORDED = re.compile(f"{MARK}|{RECURRENT_MARK}")
_LAYER = re.compile(f"{LAYER_MARK}(\\d+)_")
_MAXIMUM, _CHOICE = "maximum with 0", "choice between x and 0"
_COMPARISONS = {"Greater", "GreaterEqual", "Less", "LessEqual", "gt", "ge", "lt", "le"}  # TensorFlow, JAX
# attributes of TensorFlow's operations that name functions of the graph's library
_FUNCTION_ATTRIBUTES = ("f", "body", "cond", "then_branch", "else_branch", "branches")


def of_graph(graph: Any, taps: Taps) -> dict[str, str]:
    """Path of a layer -> the activation in it that no tap recorded, in a TensorFlow graph.

    Args:
        graph: the `FuncGraph` of a traced forward pass.
        taps: the marked taps that were open during tracing.
    """
    definition = graph.as_graph_def()
    library = {function.signature.name: function.node_def for function in definition.library.function}
    missed: dict[str, str] = {}

    def visit(nodes: Any, outer_scope: str) -> None:
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            # a function's nodes have only the inner part of their name scope
            scope = f"{outer_scope}/{node.name}"
            if _RECORDED.search(scope) or node.name in taps.operations:
                continue
            if node.op in _OPERATIONS:
                missed.setdefault(_layer_path(scope, taps), f"{node.op.lower()} that no hook saw")
            elif node.op in ("Maximum", "Select", "SelectV2") and (name := _by_hand(node, by_name)):
                missed.setdefault(_layer_path(scope, taps), f"{name} that no hook saw")
            for key in _FUNCTION_ATTRIBUTES:
                if key in node.attr:
                    for function in (node.attr[key].func, *node.attr[key].list.func):
                        visit(library.get(function.name, ()), scope)

    visit(definition.node, "")
    return missed


def _by_hand(node: Any, by_name: dict) -> str | None:
    """The name of a rectifier made of other operations: `maximum(x, 0)`, or `where(x > 0, x, 0)`."""
    import tensorflow as tf

    if not tf.as_dtype(node.attr["T"].type).is_floating:
        return None
    inputs = [name.lstrip("^") for name in node.input]
    if node.op == "Maximum":
        return _MAXIMUM if any(_is_zero_node(name, by_name) for name in inputs) else None
    condition, *branches = inputs
    comparison = by_name.get(condition.split(":")[0])
    is_comparison = comparison is not None and comparison.op in _COMPARISONS
    for x, zero in (branches, branches[::-1]):
        if is_comparison and x in comparison.input and _is_zero_node(zero, by_name):
            return _CHOICE
    return None


def _is_zero_node(name: str, by_name: dict) -> bool:
    """Whether a tensor is constant and 0."""
    import tensorflow as tf

    node = by_name.get(name.split(":")[0])
    if node is None or node.op != "Const":
        is_copy = node is not None and node.op in ("Cast", "Identity", "BroadcastTo")
        return (is_copy and _is_zero_node(node.input[0], by_name)) or getattr(node, "op", "") == "ZerosLike"
    value = tf.make_ndarray(node.attr["value"].tensor)
    return value.dtype.kind in "iuf" and value.size > 0 and not value.any()


def _layer_path(scope: str, taps: Taps) -> str:
    """The path of the innermost layer of a name scope."""
    numbers = _LAYER.findall(scope)
    return taps.paths[int(numbers[-1])] if numbers and int(numbers[-1]) < len(taps.paths) else ""


def of_jaxpr(program: Any, taps: Taps) -> dict[str, str]:
    """Path of a layer -> the activation in it that no tap recorded, in a traced JAX program.

    Args:
        program: the `ClosedJaxpr` of a forward pass.
        taps: the marked taps that were open during tracing.
    """
    missed: dict[str, str] = {}

    def visit(jaxpr: Any, outer_scope: str) -> None:
        producers = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
        for equation in jaxpr.eqns:
            scope = f"{outer_scope}/{equation.source_info.name_stack}"
            if _RECORDED.search(scope):
                continue
            if equation.primitive.name == "custom_jvp_call":
                inner = equation.params["call_jaxpr"].jaxpr
                name = str(getattr(getattr(inner, "debug_info", None), "func_name", ""))
            else:
                name = str(equation.params.get("name", ""))
            activation = name if name in _FUNCTIONS else _by_hand_in_jax(equation, name, producers)
            if activation:
                missed.setdefault(_layer_path(scope, taps), f"{activation} that no hook saw")
                continue
            for value in equation.params.values():
                for part in value if isinstance(value, tuple | list) else [value]:
                    part = getattr(part, "jaxpr", part)  # of a ClosedJaxpr
                    if hasattr(part, "eqns"):
                        visit(part, scope)

    visit(program.jaxpr, "")
    return missed


def _by_hand_in_jax(equation: Any, name: str, producers: dict) -> str | None:
    """The same as `_by_hand`, of an equation.

    Args:
        equation: the equation.
        name: name of the function that it calls, or "".
        producers: variable -> the equation that computes it.
    """
    import jax

    if not jax.numpy.issubdtype(getattr(equation.outvars[0].aval, "dtype", bool), jax.numpy.floating):
        return None
    values = equation.invars
    if equation.primitive.name == "max" and any(_is_zero_value(v, producers) for v in values):
        return _MAXIMUM
    if name == "clip" and _is_zero_value(values[1], producers):
        return _MAXIMUM
    if name == "_where" and len(values) == 3:
        comparison = producers.get(values[0])
        for x, zero in (values[1:], values[:0:-1]):
            is_compared = comparison is not None and comparison.primitive.name in _COMPARISONS
            if is_compared and any(v is x for v in comparison.invars) and _is_zero_value(zero, producers):
                return _CHOICE
    return None


def _is_zero_value(value: Any, producers: dict) -> bool:
    """Whether a value of a jaxpr is constant and 0."""
    if hasattr(value, "val"):  # a literal
        return getattr(value.val, "shape", ()) == () and float(value.val) == 0
    producer = producers.get(value)
    is_copy = producer is not None and producer.primitive.name in ("broadcast_in_dim", "convert_element_type")
    return is_copy and _is_zero_value(producer.invars[0], producers)
