import dataclasses
import re

import numpy as np
import pytest

from bnhead.census.census import Census
from bnhead.report.census_page import census_content, census_html
from bnhead.report.inspected import INITIAL, Inspected
from tests.census.batches import counts_of_batch
from tests.report.test_pages import Page

INSPECTED = Inspected("resnet20", "resnet20", "bn_fc", INITIAL, 7, "", "digits")


def flat(units=6):
    return counts_of_batch(np.array([3, 3]), np.full(units, 1), np.zeros(units))


def with_classes():
    """One of three units is dead, one is silent on the second class."""
    counts = counts_of_batch(
        np.array([1, 2, 1]), np.array([3, 0, 2]), np.array([3, 0, 0]), np.array([1, 1, 1])
    )
    counts.class_inputs, counts.class_active = np.array([2, 1]), np.array([[2, 0, 2], [1, 0, 0]])
    return counts


def unknown():
    return counts_of_batch(np.array([1]), np.array([1, 0]), np.array([1, 0]), nonfinite=1, first_nonfinite=0)


CENSUS = Census(
    {"stem": flat(), "middle": with_classes(), "<b>bad</b>": unknown(), "late": flat(), "fc": flat()}
)


def make(census=CENSUS, inspected=INSPECTED, **settings):
    return census_html(census, inspected, **{"about": {"model": "net"}, **settings})


def test_names_are_escaped():
    strange = dataclasses.replace(INSPECTED, net="<script>alert(1)</script>")
    census = Census({"$x$<b>": with_classes(), "<b>bad</b>": unknown()})
    html = make(census, strange, about={"model": "a & b"}, classes=["<i>cat</i>", "$\\frac$"])
    assert "<script>" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html.replace("<wbr>", "")
    assert "<b>bad</b>" not in html and "&lt;b&gt;bad&lt;/b&gt;" in html.replace("<wbr>", "")
    assert "a &amp; b" in html and "<i>cat" not in html and "&lt;i&gt;cat&lt;/i&gt;" in html


def test_it_shows_everything_and_loads_nothing():
    html = make()
    page = Page(html)
    assert page.open == [] and page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert "1 (33.3%)" in html and "Unknown: values are not finite on 1 input," in html
    assert html.count("<figure><div") == 5  # activity of the known layers, classes of one
    assert not re.search(r"https?:|<link|<script|url\((?!#)|@import|<img", html)
    assert "prefers-color-scheme: dark" in html
    assert all(
        link.startswith(("#", "data:image/png;base64,")) for link in re.findall(r'href="([^"]*)"', html)
    )


def test_the_heading_says_whose_weights_and_the_conclusion():
    page = Page(make())
    start = page.text[: page.text.index("By depth")]
    assert "initial weights, seed 7" in start and "Nothing was trained" in start
    assert "resnet20 with head bn_fc on digits: 1 of 21 units are dead (4.8%), in 1 of 4 layers." in start
    assert "Most: middle (33.3%)" in start
    trained = dataclasses.replace(INSPECTED, weights="run")
    assert "Nothing was trained" not in Page(make(inspected=trained)).text


def test_the_last_layer_comes_first_and_flat_layers_are_folded():
    content = census_content(CENSUS, INSPECTED, {}, ())
    assert content["head"]["name"] == "fc" and content["head"]["is_open"]
    assert [layer["name"] for layer in content["notable"]] == ["middle", "<b>bad</b>"]
    assert [layer["name"] for layer in content["flat"]] == ["stem", "late"]
    html = make()
    places = [html.index(f'<details class="layer" id="layer{number}"') for number in (5, 2, 3, 1, 4)]
    assert places == sorted(places)
    folded = html.index("2 layers: no dead units, and no other figure stands out")
    assert places[2] < folded < places[3]


def test_layers_with_most_dead_units_are_open():
    dying = Census({
        f"layer{number}": counts_of_batch(np.array([number]), np.arange(20) >= number, np.zeros(20))
        for number in range(1, 10)
    })  # fmt: skip
    content = census_content(dying, INSPECTED, {}, ())
    assert [layer["name"] for layer in content["notable"]] == [f"layer{n}" for n in range(8, 0, -1)]
    assert [layer["is_open"] for layer in content["notable"]] == [True] * 6 + [False] * 2


def test_the_chart_has_both_ends_of_each_known_layer():
    bars = census_content(CENSUS, INSPECTED, {}, ())["ends_chart"]["bars"]
    assert ["dead" in bar for bar in bars] == [True, True, False, True, True]
    assert (bars[1]["dead"], bars[1]["always_on"]) == (33.33, 33.33)
    html = make()
    assert html.count('<rect class="end dead" x=') == html.count('<rect class="end on" x=') == 1
    assert html.count('<rect class="between" x=') == 4 and html.count('<rect class="missing" x=') == 1
    assert "<title>2, middle: dead 1 (33.3%), always on 33.3%, silent per input 44.4%</title>" in html
    assert "<title>3, &lt;b&gt;bad&lt;/b&gt;: unknown</title>" in html and "</svg>unknown</li>" in html
    assert "</svg>unknown</li>" not in make(Census({"stem": flat(), "fc": flat()}))
    assert "By depth" not in make(Census({"fc": with_classes()}))  # a single bar says nothing


def test_the_net_is_drawn_with_its_units():
    steps = [
        ["x", "Input", []],
        ["stem", "Dense", [0]],
        ["middle", "<b>Mine</b>", [1]],
        ["end", "Dense", [2]],
    ]
    html = make(steps=steps)
    assert ">The net</h2>" in html and html.count('<svg class="lanes"') == 3  # stem with x, middle, end
    assert '<a class="box" href="#layer2"><span class="name">middle</span>' in html
    assert 'aria-label="3 units, 1 dead, 1 always on"' in html and "<b>Mine</b>" not in html
    assert '<span class="box plain"><span class="name">Dense</span></span>' in html
    sequence = make()
    assert "The layers, in the order in which they run" in sequence and '<svg class="lanes"' not in sequence
    assert sequence.count('<a class="box"') == 5


@pytest.mark.parametrize("figure", ["class-dead", "runs (expected), p"])
def test_figures_for_experts_are_folded_and_explained(figure):
    html = make()
    folded = html[html.index("What each figure means") :]
    assert figure in folded and figure not in html[: html.index("What each figure means")]
    assert "It is no sign of damage" in folded and "A run is a row of dead units" in folded


def test_pictures_are_drawn_in_the_ink_of_the_page():
    svg = make(Census({"fc": with_classes()}))
    assert svg.count('viewBox="0 0 302.4 208.8"') == 1 and "currentColor" in svg
    assert "#010203" not in svg and "xmlns" not in svg and "<metadata" not in svg
    assert make() == make()
