"""The net's own diagram: its boxes from the input to the output, the lines between them, and every unit.

A box is a run of layers without a branch between them; it ends with a counted layer, at a branch or at the
output. Boxes stand below each other. The lines between them run in lanes on the left, as in the graph of a
version control system, so that a net of any depth and any branches fits a phone.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnhead.census.census import Census
from bnhead.census.counts import Counts
from bnhead.texts import counted, shortened

# A step of `graph.outline`: name, class, indices of the steps that it reads
Step = Sequence[Any]
_CELLS = 96  # cells of a strip at most; a cell of a wider layer holds several units
_LETTERS = 24  # of a layer's name in its box
_LANE, _WIDEST = 10.0, 70.0  # pixels between two lanes, and of all lanes together
_HEIGHT = 26.0  # pixels of a box and the gap below it


@dataclass
class Box:
    """Layers that follow each other without a branch.

    Attributes:
        steps: names and classes of the layers.
        inputs: indices of the boxes that it reads.
        layers: names of the counted layers in it.
        lane: its lane, from 0 on the left.
        passing: lanes of lines that pass it.
        lanes_in: lanes from which its inputs come.
        is_read: whether another box reads it.
    """

    steps: list[tuple[str, str]]
    inputs: tuple[int, ...] = ()
    layers: list[str] = field(default_factory=list)
    lane: int = 0
    passing: tuple[int, ...] = ()
    lanes_in: tuple[int, ...] = ()
    is_read: bool = False


def diagram(steps: Sequence[Step], census: Census) -> dict[str, Any]:
    """The content of the diagram for the template.

    Args:
        steps: the net's, as of `graph.outline.steps_of`; empty draws the counted layers in their order.
        census: the counts.

    Returns:
        `height` of a row and `width` of the lanes in pixels; `is_net`, whether the lines are known; and
        `rows`, each with `at` (x of its dot), `lines` (SVG path of the lanes), `kinds` and `names` of its
        layers, and `strips`, one for each counted layer.
    """
    boxes = in_lanes(boxes_of(steps, list(census.layers))) if steps else _sequence(census)
    widest = max(lane for box in boxes for lane in (box.lane, *box.passing, *box.lanes_in))
    gap = min(_LANE, _WIDEST / max(widest, 1))
    numbers = {name: number for number, name in enumerate(census.layers, start=1)}
    rows = [
        {
            "at": _x(box.lane, gap),
            "lines": _lines(box, gap),
            "kinds": ", ".join(kind for _, kind in box.steps),
            "names": " \N{RIGHTWARDS ARROW} ".join(name for name, _ in box.steps),
            "strips": [
                {
                    "name": name,
                    "label": shortened(name, _LETTERS),
                    "place": numbers[name],
                    **strip(census.layers[name]),
                }
                for name in box.layers
            ],
        }
        for box in boxes
    ]
    return {"rows": rows, "width": _x(widest, gap) + 6, "height": _HEIGHT, "is_net": bool(steps)}


def _sequence(census: Census) -> list[Box]:
    return [Box([(name, "")], layers=[name]) for name in census.layers]


def boxes_of(steps: Sequence[Step], layers: Sequence[str]) -> list[Box]:
    """The boxes of a net, in an order in which every branch stays together.

    Args:
        steps: the net's.
        layers: names of the counted layers. One that is not a step, such as `block/relu`, is in the step
            whose path it begins with.
    """
    held = _held(steps, layers)
    readers: dict[int, list[int]] = defaultdict(list)
    for index, (_, _, inputs) in enumerate(steps):
        for read in inputs:
            readers[read].append(index)
    box_of: dict[int, int] = {}
    boxes: list[Box] = []
    for index in _branch_by_branch(steps):
        name, kind, inputs = steps[index]
        last = inputs[0] if len(inputs) == 1 else None
        if last is not None and len(readers[last]) == 1 and not held[last]:
            box_of[index] = box_of[last]
        else:
            box_of[index] = len(boxes)
            boxes.append(Box([], tuple(sorted({box_of[read] for read in inputs}))))
        boxes[box_of[index]].steps.append((name, kind))
        boxes[box_of[index]].layers += held[index]
    return boxes


def _held(steps: Sequence[Step], layers: Sequence[str]) -> dict[int, list[str]]:
    """Index of a step -> the counted layers in it."""
    indices = {name: index for index, (name, *_) in enumerate(steps)}
    held: dict[int, list[str]] = defaultdict(list)
    for layer in layers:
        path, number = re.fullmatch(r"(.*?)(#\d+)?", layer, re.DOTALL).groups(default="")
        while path and path not in indices:
            path = path.rpartition("/")[0]
        if path:
            held[indices.get(path + number, indices[path])].append(layer)
    return held


def _branch_by_branch(steps: Sequence[Step]) -> list[int]:
    """The steps in an order in which each comes after those it reads, and a branch is finished first."""
    order: dict[int, None] = {}
    is_read = {read for _, _, inputs in steps for read in inputs}
    pending = [index for index in reversed(range(len(steps))) if index not in is_read]
    while pending:
        missing = [read for read in steps[pending[-1]][2] if read not in order]
        if missing:
            pending.extend(reversed(missing))
        else:
            order[pending.pop()] = None
    return list(order)


def in_lanes(boxes: list[Box]) -> list[Box]:
    """Sets the lanes. A line stays in its lane until its last reader, which continues the leftmost one that
    ends there; a box that ends none begins a lane at the first free place."""
    last_reader = {read: reader for reader, box in enumerate(boxes) for read in box.inputs}
    occupied: dict[int, int] = {}  # lane -> the box whose output runs in it
    for index, box in enumerate(boxes):
        lanes = {source: lane for lane, source in occupied.items()}
        box.lanes_in = tuple(lanes[read] for read in box.inputs)
        ending = [lanes[read] for read in box.inputs if last_reader[read] == index]
        for lane in ending:
            del occupied[lane]
        unoccupied = (lane for lane in range(len(boxes) + 1) if lane not in occupied)
        box.lane = min(ending) if ending else next(unoccupied)
        box.passing = tuple(occupied)
        box.is_read = index in last_reader
        if box.is_read:
            occupied[box.lane] = index
    return boxes


def _x(lane: int, gap: float) -> float:
    return round(6 + lane * gap, 2)


def _lines(box: Box, gap: float) -> str:
    """SVG path of the lines in the row of a box."""
    middle, at = _HEIGHT / 2, _x(box.lane, gap)
    parts = [f"M{_x(lane, gap):g} 0V{_HEIGHT:g}" for lane in box.passing]
    for lane in box.lanes_in:
        x = _x(lane, gap)
        bend = f"V{middle:g}" if x == at else f"C{x:g} {middle:g} {at:g} 0 {at:g} {middle:g}"
        parts.append(f"M{x:g} 0{bend}")
    if box.is_read:
        parts.append(f"M{at:g} {middle:g}V{_HEIGHT:g}")
    return "".join(parts)


def strip(counts: Counts) -> dict[str, Any]:
    """The units of a layer, in their order: a cell per unit, or per so many units of a wide layer.

    Returns:
        `cells`, their number; SVG paths of height 1 in units of cells: `dead`, which fills each cell from its
        bottom by the share of dead units in it, and `on`, from its top by that of always-on units; `text`,
        the counts in words; `number`, of the dead, if there are any; and `unknown`, why the layer is.
    """
    if counts.unknown:
        return {"cells": 1, "dead": "", "on": "", "number": "", "text": "unknown", "unknown": counts.unknown}
    cells = min(counts.units, _CELLS)
    edges = np.arange(cells) * counts.units // cells
    sizes = np.diff([*edges, counts.units])
    dead, on = (np.add.reduceat(mask, edges, dtype=float) / sizes for mask in (counts.dead, counts.always_on))
    numbers = {"dead": int(counts.dead.sum()), "always on": int(counts.always_on.sum())}
    texts = [f"{number:,} {state}" for state, number in numbers.items() if number]
    return {
        "cells": cells,
        "dead": "".join(f"M{i} 1v{-share:.3g}h1v{share:.3g}z" for i, share in enumerate(dead) if share),
        "on": "".join(f"M{i} 0v{share:.3g}h1v{-share:.3g}z" for i, share in enumerate(on) if share),
        "text": ", ".join([counted(counts.units, "unit"), *texts]),
        "number": f"{numbers['dead']:,}" if numbers["dead"] else "",
        "unknown": "",
    }
