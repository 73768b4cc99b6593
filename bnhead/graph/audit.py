"""Activations in the traced program that no tap recorded."""

import re
from typing import Any

from bnhead.graph.taps import LAYER_MARK, MARK, RECURRENT_MARK, Taps

_OPERATIONS = {"Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus"}  # of TensorFlow
_FUNCTIONS = {"relu", "relu6", "silu", "elu", "selu", "leaky_relu", "gelu"}  # of jax.nn
_RECORDED = re.compile(f"{MARK}|{RECURRENT_MARK}")
_LAYER = re.compile(f"{LAYER_MARK}(\\d+)_")
_MAXIMUM = "maximum with 0"
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
            elif node.op == "Maximum" and _reads_zero(node, by_name):
                missed.setdefault(_layer_path(scope, taps), f"{_MAXIMUM} that no hook saw")
            for key in _FUNCTION_ATTRIBUTES:
                if key in node.attr:
                    for function in (node.attr[key].func, *node.attr[key].list.func):
                        visit(library.get(function.name, ()), scope)

    visit(definition.node, "")
    return missed


def _reads_zero(node: Any, by_name: dict) -> bool:
    """Whether an operation's input is a constant 0 of a float type."""
    import tensorflow as tf

    for name in node.input:
        producer = by_name.get(name.split(":")[0].lstrip("^"))
        if producer is not None and producer.op == "Const":
            value = tf.make_ndarray(producer.attr["value"].tensor)
            if value.size == 1 and value.dtype.kind == "f" and float(value.reshape(-1)[0]) == 0:
                return True
    return False


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
        for equation in jaxpr.eqns:
            scope = f"{outer_scope}/{equation.source_info.name_stack}"
            if _RECORDED.search(scope):
                continue
            if equation.primitive.name == "custom_jvp_call":
                inner = equation.params["call_jaxpr"].jaxpr
                name = str(getattr(getattr(inner, "debug_info", None), "func_name", ""))
            else:
                name = str(equation.params.get("name", ""))
            if name in _FUNCTIONS or _is_maximum_with_zero(equation):
                activation = name if name in _FUNCTIONS else _MAXIMUM
                missed.setdefault(_layer_path(scope, taps), f"{activation} that no hook saw")
                continue
            for value in equation.params.values():
                for part in value if isinstance(value, tuple | list) else [value]:
                    part = getattr(part, "jaxpr", part)  # of a ClosedJaxpr
                    if hasattr(part, "eqns"):
                        visit(part, scope)

    visit(program.jaxpr, "")
    return missed


def _is_maximum_with_zero(equation: Any) -> bool:
    if equation.primitive.name != "max":
        return False
    values = [getattr(v, "val", None) for v in equation.invars]
    return any(
        v is not None and getattr(v, "shape", ()) == () and "float" in str(getattr(v, "dtype", "float"))
        and float(v) == 0
        for v in values
    )  # fmt: skip
