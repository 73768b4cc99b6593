import numpy as np
import pytest
from matplotlib import pyplot

from bnhead.census.census import Census
from bnhead.census.counts import Counts
from bnhead.census.figures import DEAD
from bnhead.errors import UsageError
from tests.census.batches import added, counts_of_batch, parts, random_activations

pytestmark = pytest.mark.quick


def test_a_census_merges_layer_by_layer():
    halves = [
        Census({"a": part, n: part})
        for n, part in zip("bc", parts(random_activations(0), sizes=[20, 20]), strict=True)
    ]
    merged = halves[0].merge(halves[1])
    assert list(merged.layers) == ["a", "b", "c"]
    assert [c.inputs for c in merged.layers.values()] == [40, 20, 20]
    assert set(merged.figures(["dataset"])) == {f"dead/{name}/dataset" for name in "abc"}


def test_census_names_and_prints(monkeypatch):
    census = Census({"head_fc": added(random_activations(0, inputs=300)), "other": Counts.empty(2)})
    assert list(census.figures(["per_input", "dataset"]))[:2] == [
        "dead/head_fc/dataset",
        "dead/head_fc/per_input",
    ]
    assert census.figures()["dead/head_fc/dataset"] == pytest.approx(1 / 7)
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, str(census).splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    text = str(census)
    assert "head_fc: 7 units, 300 inputs" in text
    assert "300 inputs; a dead unit fires on less than 1.00% of inputs, at 95 %\n" in text
    assert (
        "\n  dead                1 (14.3%)        share of units that are dead: silent on every input" in text
    )
    assert "\n  dormant 0.025       14.3%            share of units whose mean activation" in text
    assert "\n  runs (expected), p  1 (1.0), 1       exact probability" in text
    assert "other: unknown, no inputs were counted" in text


def test_a_census_shows_itself_in_a_line_and_as_a_table():
    known = added(random_activations(0, inputs=300))
    census = Census({"<fc>": known, "other": Counts.empty(1)}, {"loop": "an activation in a loop"})
    assert repr(known) == "<Counts: 7 units on 300 inputs, 1 dead (14.3%)>"
    assert repr(Counts.empty(1)) == "<Counts: 1 unit on 0 inputs, unknown, no inputs were counted>"
    assert repr(census) == "<Census: 2 layers, 8 units on 300 inputs, 1 dead (14.3%), 1 layer unknown>"
    assert repr(Census({"fc": known})) == "<Census: fc, 7 units on 300 inputs, 1 dead (14.3%)>"
    assert repr(Census()) == "<Census: 0 layers, 0 units on 0 inputs>"
    html = census._repr_html_()
    assert "&lt;fc&gt;" in html and "unknown: no inputs were counted" in html and "<fc>" not in html
    assert "not looked at: loop, an activation in a loop" in html
    assert f">{DEAD.meaning}<" in html and "1 (14.3%)" in html and " 14.3%,transparent" in html


def test_the_shares_of_all_layers_are_those_of_their_units():
    counts = [added(random_activations(0)), added(random_activations(1)[..., :3])]
    census = Census(dict(zip("ab", counts, strict=True)))
    dead = sum(c.dead.sum() for c in counts) / 10
    silent = sum(c.figures()["per_input"] * c.units for c in counts) / 10
    assert census.overall() == pytest.approx({"dead/dataset": dead, "dead/per_input": silent})
    census.layers["b"] = Counts.empty(3)
    assert np.isnan(list(census.overall().values())).all()


def test_a_census_is_a_data_frame():
    frame = Census({"a": added(random_activations(0)), "b": Counts.empty(2)}).to_frame()
    assert list(frame.index) == ["a", "b"] and frame["units"].tolist() == [7, 2]
    assert frame["dataset"].isna().tolist() == [False, True]
    assert frame["unknown"].tolist() == ["", "no inputs were counted"]


def test_layers_of_other_numbers_of_inputs_are_told_apart():
    dead = np.zeros((300, 1, 4))
    census = Census({"a": added(dead), "b": added(dead[:100]), "c": added(dead)})
    assert repr(census) == "<Census: 3 layers, 12 units on 100 to 300 inputs, 12 dead (100.0%)>"
    joint = [-np.log(0.05 / k) / n for k, n in ((4, 100), (8, 300))]
    assert census.bounds_in_words() == [
        f"{n} inputs: a dead unit fires on less than {3 / n:.2%} of inputs, at 95 % "
        f"(all {k} at once: {bound:.2%})"
        for n, k, bound in ((100, 4, joint[0]), (300, 8, joint[1]))
    ]
    assert f"(all 4 at once: {joint[0]:.2%})" in census._repr_html_()
    assert f"b: 4 units, 100 inputs; {census.bounds_in_words()[0][12:]}\n" in str(census)


def test_plots_are_of_the_last_layer_or_of_one_by_name():
    census = Census({"a": added(random_activations(0)), "b": added(random_activations(1))})
    assert census.plot_activity().get_title() == "b" and census.plot_activity("a").get_title() == "a"
    assert [label.get_text() for label in census.plot_ends().get_xticklabels()] == ["a", "b"]
    bare = Census({"a": counts_of_batch(np.array([1]), np.array([1, 0]), np.array([1, 0]))})
    for plot, message in (
        (lambda: census.plot_activity("aa"), "layer 'aa' was not counted; did you mean 'a'"),
        (bare.plot_classes, r"plot_classes needs labels: count on data \(x, y\)"),
        (bare.plot_codeath, "plot_codeath needs the co-death: count with together=True"),
        (Census().plot_activity, "the census has no layers"),
        (Census({"a": Counts.empty(2)}).plot_activity, "layer 'a' is unknown: no inputs were counted"),
    ):
        with pytest.raises(UsageError, match=message):
            plot()
    pyplot.close("all")
