"""Bounds of every tensor of a functional model, without data.

A box bounds the values of a tensor (`bnhead.census.boxes`). Each layer with a rule turns the boxes of its
inputs into the box of its output (`bnhead.census.layer_rules`); the output of any other layer is unbounded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras.src import backend

from bnhead.census.activations import activated, activation_name
from bnhead.census.boxes import Box
from bnhead.census.layer_rules import IN_EVALUATION, Mode, channels_first, rule_of
from bnhead.graph import Call, functional, model_calls, nested


@dataclass(frozen=True)
class Bounded:
    """A call of a layer with a rule.

    Attributes:
        before: the box of its pre-activation; of its output if it has no activation.
        after: the box of its output.
        axis: the axis of the units, counted without the examples.
    """

    before: Box
    after: Box
    axis: int

    def hull(self, bounded: "Bounded | None") -> "Bounded | None":
        """The bounds of both calls; None if they have different numbers of units, or one has no bounds."""
        if bounded is None or self.after.low.shape[self.axis] != bounded.after.low.shape[bounded.axis]:
            return None
        return replace(self, before=self.before.hull(bounded.before), after=self.after.hull(bounded.after))


def bounds_of(model: keras.Model, paths: set[str], mode: Mode = IN_EVALUATION) -> dict[str, Bounded]:
    """The bounds of layers of a functional model, for all calls of a layer together.

    Args:
        model: any built model; a subclassed model has no bounds.
        paths: paths of the layers, as the taps name them; only the calls before these are computed.
        mode: evaluation mode without data, or another.
    """
    graph = functional(model)
    records: dict[str, Bounded | None] = {}
    if graph is not None and getattr(graph, "inputs", None):
        boxes = [unbounded(tensor) for tensor in graph.inputs]
        boxes = [_observed(box, mode, i) for i, box in enumerate(boxes)]
        _run(graph, boxes, "", paths, mode, records)
    return {path: bounded for path, bounded in records.items() if bounded is not None}


def _run(
    graph: Any,
    boxes: Sequence[Box],
    prefix: str,
    paths: set[str],
    mode: Mode,
    records: dict[str, Bounded | None],
) -> list[Box]:
    """Bounds of a graph's outputs for bounds of its inputs. Enters the calls into `records`."""
    calls = model_calls(graph)
    needed = {id(tensor) for tensor in graph.outputs} if prefix else set()
    ancestors = []
    for call in reversed(calls):
        path = prefix + call.operation.name
        is_selected = path in paths or any(name.startswith(f"{path}/") for name in paths)
        if is_selected or needed & set(map(id, call.outputs)):
            ancestors.append(call)
            needed |= set(map(id, call.inputs))
    values = dict(zip(map(id, graph.inputs), boxes, strict=True))
    for call in reversed(ancestors):
        path, inner = prefix + call.operation.name, nested(call)
        if inner is not None:
            argument, by_name = call.arguments[0], not isinstance(inner._inputs_struct, dict)
            if isinstance(argument, dict) and by_name:
                argument = [argument.get(tensor.name) for tensor in inner.inputs]
            pairs = zip(keras.tree.flatten(argument), inner.inputs, strict=True)
            inputs = [values.get(id(tensor)) or unbounded(declared) for tensor, declared in pairs]
            results = _run(inner, inputs, f"{path}/", paths, mode, records)
            values |= zip(map(id, call.outputs), results, strict=True)
            continue
        bounded = _bounded(call, [values[id(tensor)] for tensor in call.inputs], mode)
        values |= {id(tensor): unbounded(tensor) for tensor in call.outputs}
        output = call.outputs[0]
        after = values[id(output)] if bounded is None else bounded.after
        values[id(output)] = _observed(after, mode, path)
        if bounded is not None:
            records[path] = bounded.hull(records[path]) if path in records else bounded
    return [values.get(id(tensor)) or unbounded(tensor) for tensor in graph.outputs]


def _observed(box: Box, mode: Mode, key: str | int) -> Box:
    """A box within the observed bounds. Those of a pre-activation would be a count, not a certificate."""
    if mode.observed is None or key not in mode.observed or box.affine:
        return box
    low, high = mode.observed[key]
    return replace(box, low=np.maximum(box.low, low), high=np.minimum(box.high, high))


def unbounded(tensor: Any) -> Box:
    """The box of a tensor of which only the type is known: an integer of eight bits, a truth value."""
    low, high = {"uint8": (0, 255), "int8": (-128, 127), "bool": (0, 1)}.get(
        backend.standardize_dtype(tensor.dtype), (-math.inf, math.inf)
    )
    return Box.of(low, high, len(tensor.shape))


def _bounded(call: Call, boxes: list[Box], mode: Mode) -> Bounded | None:
    """The bounds of a call's first output; None without a rule."""
    layer, output = call.operation, call.outputs[0]
    axis = 0 if channels_first(layer) and len(output.shape) > 2 else -1
    rule = rule_of(layer)
    if rule is None or min(len(tensor.shape) for tensor in (output, *call.inputs)) < 2:
        return None
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        before = rule(call, boxes, mode)
        if before is None:
            return None
        function = getattr(layer, "activation", layer)
        after = activated(function, before) if function is not layer or activation_name(layer) else before
    return Bounded(before, after, axis)
