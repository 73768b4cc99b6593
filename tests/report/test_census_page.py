import re

import numpy as np

from bnhead.census.counts import Census
from bnhead.report.census_page import census_html
from tests.census.batches import counts_of_batch


def make(**settings):
    known = counts_of_batch(
        np.array([1, 2, 1]), np.array([3, 0, 2]), np.array([3, 0, 0]), np.array([1, 1, 1])
    )
    known.class_inputs, known.class_active = np.array([2, 1]), np.array([[2, 0, 1], [1, 0, 1]])
    unknown = counts_of_batch(
        np.array([1]), np.array([1, 0]), np.array([1, 0]), nonfinite=1, first_nonfinite=0
    )
    census = Census({"fc": known, "<b>bad</b>": unknown})
    return census_html(census, **{"title": "net", "about": {"model": "net"}, **settings})


def test_names_are_escaped():
    html = make(title="<script>alert(1)</script>", about={"model": "a & b"}, classes=["<i>cat</i>", "dog"])
    assert "<script>" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>bad</b>" not in html and "&lt;b&gt;bad&lt;/b&gt;" in html and "a &amp; b" in html


def test_it_shows_everything_and_loads_nothing():
    html = make()
    assert "1 (33.3%)" in html and "unknown: values are not finite on 1 input" in html
    assert html.count("data:image/png;base64,") == 2  # activity and classes of the layer that is known
    assert not re.search(r"https?:|<link|<script|url\(|@import", html)
    assert "prefers-color-scheme: dark" in html
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', html))
