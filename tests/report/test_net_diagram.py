import re

import numpy as np
import pytest

from bnhead.census.census import Census
from bnhead.report.net_diagram import Box, boxes_of, diagram, in_lanes, strip
from tests.census.batches import counts_of_batch

pytestmark = pytest.mark.quick
RESIDUAL = [
    ["image", "Input", []],
    ["conv1", "Conv2D", [0]],
    ["relu1", "ReLU", [1]],
    ["conv2", "Conv2D", [2]],
    ["relu2", "ReLU", [3]],
    ["conv3", "Conv2D", [4]],
    ["add", "Add", [2, 5]],
    ["relu3", "ReLU", [6]],
    ["out", "Dense", [7]],
]


def layer(units=4, inputs=3, dead=(), on=()):
    active, everywhere = np.ones(units), np.zeros(units)
    active[list(dead)], active[list(on)], everywhere[list(on)] = 0, inputs, inputs
    silent = np.full(inputs, units - len(on))
    return counts_of_batch(silent, active, everywhere)


def test_a_box_ends_with_a_counted_layer_or_at_a_branch():
    boxes = boxes_of(RESIDUAL, ["relu1", "relu2", "relu3"])
    names = [[name for name, _ in box.steps] for box in boxes]
    assert names == [["image", "conv1", "relu1"], ["conv2", "relu2"], ["conv3"], ["add", "relu3"], ["out"]]
    assert [box.layers for box in boxes] == [["relu1"], ["relu2"], [], ["relu3"], []]
    assert [box.inputs for box in boxes] == [(), (0,), (1,), (0, 2), (3,)]
    assert [[name for name, _ in box.steps] for box in boxes_of(RESIDUAL, [])] == [
        ["image", "conv1", "relu1"],
        ["conv2", "relu2", "conv3"],
        ["add", "relu3", "out"],
    ]


def test_the_trunk_of_a_residual_net_stays_in_its_lane():
    boxes = in_lanes(boxes_of(RESIDUAL, ["relu1", "relu2", "relu3"]))
    assert [box.lane for box in boxes] == [0, 1, 1, 0, 0]
    assert [box.passing for box in boxes] == [(), (0,), (0,), (), ()]
    assert boxes[3].lanes_in == (0, 1) and [box.is_read for box in boxes] == [True] * 4 + [False]


def test_a_branch_is_finished_before_the_next():
    # two branches, run in turn, as Keras does it: by depth
    steps = [["x", "Input", []], ["a1", "", [0]], ["b1", "", [0]], ["a2", "", [1]], ["b2", "", [2]]]
    boxes = boxes_of([*steps, ["both", "", [3, 4]]], ["a1", "b1", "a2", "b2"])
    assert [box.steps[0][0] for box in boxes] == ["x", "a1", "a2", "b1", "b2", "both"]


def test_layers_inside_a_step_and_repeated_calls_are_in_their_boxes():
    steps = [["x", "Input", []], ["block", "Block", [0]], ["relu", "ReLU", [1]], ["relu#2", "ReLU", [2]]]
    boxes = boxes_of(steps, ["block/fc/relu", "block/fc/relu#2", "relu", "relu#2", "elsewhere"])
    assert [box.layers for box in boxes] == [["block/fc/relu", "block/fc/relu#2"], ["relu"], ["relu#2"]]


@pytest.mark.parametrize("seed", range(20))
def test_every_line_runs_unbroken_and_alone_in_its_lane(seed):
    rng = np.random.default_rng(seed)
    boxes = [Box([]) for _ in range(30)]
    for index, box in enumerate(boxes[1:], start=1):
        box.inputs = tuple(sorted(set(rng.integers(max(0, index - 6), index, rng.integers(1, 4)).tolist())))
    in_lanes(boxes)
    for reader, box in enumerate(boxes):
        assert len(box.lanes_in) == len(box.inputs) and box.lane not in box.passing
        for source, lane in zip(box.inputs, box.lanes_in, strict=True):
            assert lane == boxes[source].lane
            assert all(lane in boxes[between].passing for between in range(source + 1, reader))


def test_a_strip_has_a_cell_per_unit_or_shares_of_several():
    narrow = strip(layer(4, dead=[1], on=[3]))
    assert (narrow["cells"], narrow["dead"], narrow["on"]) == (4, "M1 1v-1h1v1z", "M3 0v1h1v-1z")
    assert narrow["text"] == "4 units, 1 dead, 1 always on" and narrow["number"] == "1"
    wide = strip(layer(1000, dead=range(500, 505)))
    assert wide["cells"] == 96 and wide["on"] == ""
    sizes = np.diff([*(np.arange(96) * 1000 // 96), 1000])
    filled = {int(i): float(h) for i, h in re.findall(r"M(\d+) 1v-([\d.]+)h1v", wide["dead"])}
    assert sum(share * sizes[cell] for cell, share in filled.items()) == pytest.approx(5, abs=0.02)
    assert set(filled) == {48}


def test_the_diagram_names_every_layer_once():
    unknown = counts_of_batch(np.array([1]), [1, 0], [1, 0], nonfinite=1, first_nonfinite=0)
    census = Census({"relu1": layer(dead=[0]), "relu2": unknown, "relu3": layer()})
    net = diagram(RESIDUAL, census)
    shown = [(s["name"], s["place"], s["number"]) for row in net["rows"] for s in row["strips"]]
    assert shown == [("relu1", 1, "1"), ("relu2", 2, ""), ("relu3", 3, "")] and net["is_net"]
    assert net["rows"][1]["strips"][0]["unknown"].startswith("values are not finite")
    assert net["rows"][0]["names"] == "image \N{RIGHTWARDS ARROW} conv1 \N{RIGHTWARDS ARROW} relu1"
    assert net["rows"][2]["kinds"] == "Conv2D" and net["rows"][-1]["lines"].endswith("V13")
    sequence = diagram([], census)
    assert [row["strips"][0]["name"] for row in sequence["rows"]] == list(census.layers)
    assert not sequence["is_net"] and all(row["lines"] == "" for row in sequence["rows"])
