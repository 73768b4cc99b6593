import numpy as np
import pytest

from bnhead.census.accumulation import Accumulation
from bnhead.census.census import Census
from bnhead.census.counts import Counts, Moments
from bnhead.report.census_remarks import accumulated, causes, conclusion, remarks, worst_layers

pytestmark = pytest.mark.quick
INPUTS = 1000


def layer(active, everywhere=None, **settings):
    """Counts of units that are active on so many of 1,000 inputs; the histogram by input is any."""
    active = np.array(active)
    histogram = np.zeros(len(active) + 1, np.int64)
    histogram[0] = INPUTS
    everywhere = np.zeros_like(active) if everywhere is None else np.array(everywhere)
    return Counts(histogram, active, everywhere, **settings)


def unknown():
    return layer([1, 1], nonfinite=3, first_nonfinite=0)


HALF = [500] * 20


def test_a_usual_layer_has_no_remarks():
    assert remarks(layer(HALF), 1) == [] and remarks(unknown(), 1) == []
    assert remarks(layer([0, *HALF]), 1) == []  # dead units are in every summary


def test_dead_units_side_by_side_are_judged_over_all_layers():
    side_by_side = layer([0] * 5 + HALF)  # p = 21 / C(25, 5) = 0.0004
    assert remarks(side_by_side, 10) == [
        "the dead units lie side by side: 1 run, 4.2 expected by chance, p 0.0004"
    ]
    assert remarks(side_by_side, 200) == []
    assert remarks(layer([0, 500] * 5 + HALF), 1) == []


def test_unequal_groups():
    (remark,) = remarks(layer(([0, 500] * 8) + [500] * 16, groups=(16, 16)), 1)
    assert remark.startswith(
        "dead units are unequally spread over the concatenated groups: 8 of 16, 0 of 16, p "
    )


def test_rarely_active_and_always_on():
    assert remarks(layer([0, 5, 5, *HALF]), 1) == [
        "active on less than 1 % of the inputs, without being dead: 2 units"
    ]
    assert remarks(layer([5, *HALF, *HALF]), 1) == []
    everywhere = [INPUTS] * 2 + [0] * 18
    assert remarks(layer(HALF, everywhere), 1) == ["always on, where a ReLU is linear: 10.0% of the units"]
    assert remarks(layer(HALF, [INPUTS] * 20), 1) == []  # an activation without zeros


def test_constant_and_without_gradient():
    moments = Moments(INPUTS, np.zeros(3), np.array([0.0, 0.0, 500.0]))
    gradient = np.array([0.0, 0.0, 1.0])
    assert remarks(layer([0, 500, 500], moments=moments, gradient=gradient), 1) == [
        "constant without being dead: 1 unit",
        "without a gradient, without being dead: 1 unit",
    ]


def test_clones():
    products = np.eye(5) * 1000
    products[0, 1] = products[1, 0] = products[3, 4] = products[4, 3] = 999
    assert remarks(layer(HALF[:5], comoments=Moments(INPUTS, np.zeros(5), products)), 1) == [
        "outputs correlate by at least 0.99 with those of another unit: 4 units, in 2 groups"
    ]
    assert remarks(layer(HALF[:5], comoments=Moments(INPUTS, np.zeros(5), np.eye(5))), 1) == []


def test_ablation():
    changes = {"ablated_loss": np.array([0, 0.25, 0]), "ablated_metric": np.array([0, -0.5, 0])}
    assert remarks(layer(HALF, **changes), 1) == [
        "without the dormant units the loss changes by +0.25, the metric by -0.5"
    ]
    rare = layer(HALF, ablated_loss=np.array([0, 0, -1e-3]))
    assert remarks(rare, 1) == ["without the rarely active units the loss changes by -0.001"]
    assert remarks(layer(HALF, ablated_loss=np.array([0, 9e-4, -9e-4])), 1) == []


def test_a_class_that_silences_the_layer():
    class_active = np.array([[9] * 4, [9] * 4, [9, 0, 0, 9]])
    sizes = np.array([10, 10, 10])
    counts = layer([27, 18, 18, 27], class_inputs=sizes, class_active=class_active)
    text = "silent on all of class {}: 50.0% of the units; on the median class 0.0%"
    assert text.format("dog") in remarks(counts, 1, ["cat", "hare", "dog"])
    assert text.format(2) in remarks(counts, 1)
    empty = layer(
        [18, 18, 18, 18], class_inputs=np.array([10, 10, 0]), class_active=class_active * [[1], [1], [0]]
    )
    assert remarks(empty, 1) == []  # a class without inputs silences nothing


def test_conclusions():
    flat, dying = layer(HALF), layer([0, 0, 500, 500])
    assert conclusion(Census({"a": flat, "b": flat})) == "No dead units in 2 layers."
    assert conclusion(Census({"a": flat})) == "No dead units in a."
    assert conclusion(Census({"a": flat, "b": dying})) == "2 of 24 units are dead (8.3%), in 1 of 2 layers."
    assert conclusion(Census({"fc": dying})) == "2 of 4 units are dead (50.0%), in fc."
    assert conclusion(Census({"a": flat, "b": unknown()})) == "No dead units in a. 1 layer unknown."
    assert conclusion(Census({"a": unknown()})) == "Unknown: no count of 1 layer is valid."


def accumulating(first, active, **settings):
    order = Accumulation(np.array(first), ((0, INPUTS),))
    return layer(active, accumulation=order, **settings)


def test_the_dead_fall_with_the_number_of_inputs():
    # dead(n) of `a`: 4 for n up to 2, 3 for 4 to 64, 2 from 128 on; 1,000 inputs: n = 4, 64 and N
    a = accumulating([0, 3, 100, -1, -1], [900, 1, 1, 0, 0])
    text = "3 units silent on the first 4 inputs, 3 on 64, 2 on 1,000"
    assert accumulated(Census({"a": a})) == f"{text}; at least 1 of these would fire on more inputs (Chao2)"
    certain = accumulating([0, 3, 100, -1, -1], [900, 400, 200, 0, 0])
    assert accumulated(Census({"a": certain})) == text
    assert accumulated(Census({"a": certain, "b": certain})).endswith(", 6 on 64, 4 on 1,000")
    other = accumulating([0, -1], [500, 0])
    other.accumulation, other.inputs_by_silent = (
        Accumulation(other.accumulation.first_active, ((0, 2000),)),
        (2 * other.inputs_by_silent),
    )
    assert accumulated(Census({"a": certain, "b": other})) == f"{text} (in 1 of 2 layers)"
    assert accumulated(Census({"a": layer([0, 1]), "b": unknown()})) == ""
    assert accumulated(Census({"a": accumulating([0, 4], [9, 3])})) == ""


def test_the_worst_layers_come_first():
    few, some, most = layer([0, *HALF, *HALF]), layer([0, *HALF]), layer([0, 500])
    half = layer([0, 0, 500, 500, 500])
    names = {"flat": layer(HALF), "some": some, "most": most, "half": half, "few": few, "bad": unknown()}
    census = Census(names)
    assert worst_layers(census) == ["most", "half", "some"]
    assert worst_layers(census, 1) == ["most"] and worst_layers(Census({"flat": layer(HALF)})) == []


def test_the_causes_of_the_dead_units_are_one_line():
    dead = [0, 0, 0, *HALF]
    kinds = np.array([2, 1, 0, *[0] * 20])  # weight-dead, bias-dead, not certified
    certified, uncertified = layer(dead, causes=kinds), layer(dead, causes=0 * kinds)
    assert causes(Census({"a": certified, "b": uncertified})) == (
        "2 of 6 dead units cannot fire on any input (1 weight-dead, 1 bias-dead); further inputs may wake "
        "the other 4"
    )
    assert causes(Census({"a": layer([0, 0, *HALF], causes=kinds[:-1])})) == (
        "2 of 2 dead units cannot fire on any input (1 weight-dead, 1 bias-dead)"
    )
    assert causes(Census({"a": uncertified})) == (
        "none of the 3 dead units is proved dead by its weights; further inputs may wake them"
    )
    assert causes(Census({"a": layer(HALF), "b": unknown(), "c": layer(dead)})) == ""
