import itertools
import re
from xml.etree import ElementTree

import pytest

from bnhead import heads
from bnhead.heads.diagram import svg

pytestmark = pytest.mark.quick

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("head", [*heads.PRESETS, *(token.example for token in heads.TOKENS.values())])
def test_every_head_is_drawn_in_order_with_its_placements(head):
    root = ElementTree.fromstring(svg(head, (4, 4, 8), 3))
    boxes = root.findall(f"{SVG}g")
    words = [box.findall(f"{SVG}text")[-1].text for box in boxes]
    assert words[0] == "4x4x8"
    assert [word.removesuffix(" 3") for word in words[1:]] == [str(t) for t in heads.parse(head).tokens]
    places = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "place"]
    assert tuple(places) == heads.placement(head)
    assert [box.get("class") for box in boxes].count("norm") == len(places)


def test_boxes_do_not_overlap_and_fit():
    picture = svg("fastai")
    rects = [tuple(map(int, m)) for m in re.findall(r'<rect x="(\d+)" y="\d+" width="(\d+)"', picture)]
    for (x, width), (following, _) in itertools.pairwise(rects):
        assert x + width < following
    assert rects[-1][0] + rects[-1][1] < int(re.search(r'svg" width="(\d+)"', picture)[1])


def test_a_head_on_a_vector():
    assert ">64</text>" in svg("bn_fc", (64,))


def test_the_title_of_a_parsed_head_is_its_text():
    assert svg(heads.parse("gap_bn_fc")) == svg("bn_fc")
