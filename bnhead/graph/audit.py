"""What the taps did not see: activations in the traced program that no hook has marked."""

import re
from collections.abc import Iterator
from typing import Any

from bnhead.graph.taps import LAYER_MARK, MARK, RECURRENT_MARK, Taps

_OPERATIONS = {"Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus"}  # TensorFlow's
_FUNCTIONS = {"relu", "relu6", "silu", "elu", "selu", "leaky_relu", "gelu"}  # jax.nn's
_SEEN = re.compile(f"{MARK}|{RECURRENT_MARK}")
_LAYER = re.compile(f"{LAYER_MARK}(\\d+)_")
_CALLS = ("f", "body", "cond", "then_branch", "else_branch", "branches")


def of_graph(graph: Any, taps: Taps) -> dict[str, str]:
    """Path of a layer -> what is not looked at in it, in a TensorFlow graph.

    Args:
        graph: the `FuncGraph` of a traced forward pass.
        taps: what was seen while it was traced.
    """
    definition = graph.as_graph_def()
    library = {function.signature.name: function.node_def for function in definition.library.function}
    missed: dict[str, str] = {}

    def look(nodes: Any, outside: str) -> None:
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            scope = f"{outside}/{node.name}"
            if _SEEN.search(scope) or node.name in taps.operations:
                continue
            if node.op in _OPERATIONS or (node.op == "Maximum" and _has_zero(node, by_name)):
                kind = "maximum with 0" if node.op == "Maximum" else node.op.lower()
                missed.setdefault(_layer(scope, taps), f"{kind} that no hook saw")
            for name in _called(node):
                if name in library:
                    look(library[name], scope)

    look(definition.node, "")
    return missed


def _called(node: Any) -> Iterator[str]:
    for key in _CALLS:
        if key in node.attr:
            yield node.attr[key].func.name
            yield from (function.name for function in node.attr[key].list.func)


def _has_zero(node: Any, by_name: dict) -> bool:
    import tensorflow as tf

    for name in node.input:
        other = by_name.get(name.split(":")[0].lstrip("^"))
        if other is not None and other.op == "Const":
            value = tf.make_ndarray(other.attr["value"].tensor)
            if value.size == 1 and value.dtype.kind == "f" and float(value.reshape(-1)[0]) == 0:
                return True
    return False


def _layer(scope: str, taps: Taps) -> str:
    """The path of the innermost layer that a name scope is in."""
    numbers = _LAYER.findall(scope)
    return taps.paths[int(numbers[-1])] if numbers and int(numbers[-1]) < len(taps.paths) else ""


def of_jaxpr(program: Any, taps: Taps) -> dict[str, str]:
    """Path of a layer -> what is not looked at in it, in a traced JAX program.

    Args:
        program: the `ClosedJaxpr` of a forward pass.
        taps: what was seen while it was traced.
    """
    missed: dict[str, str] = {}

    def walk(inside: Any, outside: str) -> None:
        for equation in inside.eqns:
            scope = f"{outside}/{equation.source_info.name_stack}"
            if _SEEN.search(scope):
                continue
            name = _function_name(equation)
            if name in _FUNCTIONS or _is_maximum_with_zero(equation):
                kind = name if name in _FUNCTIONS else "maximum with 0"
                missed.setdefault(_layer(scope, taps), f"{kind} that no hook saw")
                continue
            for value in equation.params.values():
                for part in value if isinstance(value, tuple | list) else [value]:
                    part = getattr(part, "jaxpr", part)
                    if hasattr(part, "eqns"):
                        walk(part, scope)

    walk(program.jaxpr, "")
    return missed


def _function_name(equation: Any) -> str:
    if equation.primitive.name == "custom_jvp_call":
        inner = equation.params["call_jaxpr"].jaxpr
        return str(getattr(getattr(inner, "debug_info", None), "func_name", ""))
    return str(equation.params.get("name", ""))


def _is_maximum_with_zero(equation: Any) -> bool:
    if equation.primitive.name != "max":
        return False
    values = [getattr(v, "val", None) for v in equation.invars]
    return any(
        v is not None and getattr(v, "shape", ()) == () and "float" in str(getattr(v, "dtype", "float"))
        and float(v) == 0
        for v in values
    )  # fmt: skip
