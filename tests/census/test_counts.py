import functools
import json

import numpy as np
import pytest
from matplotlib import pyplot

from bnhead.census.counts import Census, Counts, Moments
from bnhead.census.figures import DEAD, OF_COUNTS
from bnhead.errors import UsageError
from tests.census.batches import counts_of_batch

pytestmark = pytest.mark.quick

CLASSES = 3
NAMES = {row.name for row in OF_COUNTS if not row.name.startswith("ablated_")}  # that merge


def of_inputs(activations, finite, labels, first):
    """Counts of one batch of `(inputs, positions, units)` activations, with all that can be counted."""
    loud = activations != 0
    somewhere, everywhere, silent = loud.any(1), loud.all(1), ~loud.any(1)
    one_hot = np.eye(CLASSES, dtype=int)[labels]
    values = activations.reshape(-1, activations.shape[-1])
    centred = values - values.mean(0)
    bad = np.flatnonzero(~finite)
    return counts_of_batch(
        silent.sum(1),
        somewhere.sum(0),
        everywhere.sum(0),
        (silent[:, 1:] != silent[:, :-1]).sum(1),
        first=first,
        magnitude=np.abs(activations).mean(1).sum(0),
        moments=Moments(len(values), values.mean(0), (centred**2).sum(0)),
        comoments=Moments(len(values), values.mean(0), centred.T @ centred),
        class_inputs=one_hot.sum(0),
        class_active=one_hot.T @ somewhere,
        gradient=np.abs(activations).sum((0, 1)),
        output_gradient=np.ceil(np.abs(activations)).sum((0, 1)),
        together=somewhere.astype(int).T @ somewhere,
        causes=np.arange(activations.shape[-1]) % 3,
        groups=(2, activations.shape[-1] - 2) if activations.shape[-1] > 2 else (),
        nonfinite=len(bad),
        first_nonfinite=first + int(bad[0]) if len(bad) else None,
        nonfinite_at=f"layer{first + int(bad[0])}" if len(bad) else "",
    )


def parts(activations, finite=None, sizes=None):
    """The counts of batches of the given sizes."""
    finite = np.ones(len(activations), bool) if finite is None else finite
    labels = np.arange(len(activations)) % CLASSES
    stops = np.cumsum(sizes or [len(activations)])
    return [
        of_inputs(*(array[start:stop] for array in (activations, finite, labels)), int(start))
        for start, stop in zip([0, *stops[:-1]], stops, strict=True)
    ]


def added(activations, finite=None, sizes=None):
    """Those counts merged, from the first to the last."""
    return functools.reduce(
        Counts.merge, parts(activations, finite, sizes), Counts.empty(activations.shape[-1])
    )


def random_activations(seed, inputs=40, positions=3, units=7):
    rng = np.random.default_rng(seed)
    activations = rng.normal(size=(inputs, positions, units)) * (rng.random((inputs, positions, units)) < 0.4)
    activations[..., 0] = 0  # dead
    activations[..., 1] = 1  # always on
    return activations


def test_always_on_needs_every_position_and_silent_needs_all_silent():
    activations = np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], float)  # (2 inputs, 2 positions, 2 units)
    counts = added(activations)
    assert counts.always_on.tolist() == [False, False]
    assert counts.active.tolist() == [2, 1]
    assert counts.figures()["per_input"] == 0.25


@pytest.mark.parametrize("active_on", [0, 1, 9, 10, 11])
def test_rarely_active_is_less_than_one_percent(active_on):
    activations = np.zeros((1000, 1, 1))
    activations[:active_on] = 1
    assert added(activations).rarely_active.tolist() == [active_on < 10]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("percent", [0, 5, 33.3, 50, 95, 100])
def test_percentiles_are_numpys(seed, percent):
    activations = random_activations(seed, inputs=11 + seed)
    shares = (~(activations != 0).any(1)).mean(1)
    assert added(activations).silent_share(percent) == pytest.approx(
        np.percentile(shares, percent), abs=1e-12
    )


@pytest.mark.parametrize("sizes", [[40], [16, 16, 8], [1] * 40, [39, 1]])
def test_batches_do_not_matter(sizes):
    activations = random_activations(0)
    assert added(activations, sizes=sizes).figures() == pytest.approx(added(activations).figures(), abs=1e-12)


def equal(first, second):
    """Whether two counts are the same, floats to rounding."""
    assert first.figures() == pytest.approx(second.figures(), abs=1e-12, nan_ok=True)
    first, second = first.to_dict(), second.to_dict()
    for name in ("moments", "comoments"):
        moments = Moments.from_dict(first.pop(name)), Moments.from_dict(second.pop(name))
        for key in ("values", "mean", "squares"):
            a, b = (getattr(one, key) for one in moments)
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for key in ("magnitude", "gradient", "runs"):
        np.testing.assert_allclose(first.pop(key), second.pop(key), rtol=1e-12, atol=1e-12)
    assert first == second


@pytest.mark.parametrize("seed", range(4))
def test_merging_in_any_order_and_grouping_gives_the_counts_of_all_inputs(seed):
    activations = random_activations(1)
    finite = np.ones(40, bool)
    finite[[25, 30]] = False
    expected = added(activations, finite)
    assert (expected.nonfinite, expected.first_nonfinite, expected.nonfinite_at) == (2, 25, "layer25")
    rng = np.random.default_rng(seed)
    remaining = parts(activations, finite, [11, 9, 6, 10, 4])  # inputs 25 and 30 lie in different parts
    while len(remaining) > 1:
        i, j = rng.choice(len(remaining), 2, replace=False)
        merged = remaining[i].merge(remaining[j])
        remaining = [counts for k, counts in enumerate(remaining) if k not in (i, j)] + [merged]
    merged = remaining[0]
    # the first bad input keeps the layer that its own part recorded
    assert merged.nonfinite_at == "layer25"
    equal(merged, expected)


def test_counts_of_nothing_change_nothing():
    counts = added(random_activations(0))
    equal(counts.merge(Counts.empty(7)), counts)
    equal(Counts.empty(7).merge(counts), counts)


def test_counts_of_other_layers_do_not_merge():
    with pytest.raises(UsageError, match="counts of 7 and of 5 units do not merge"):
        added(random_activations(0)).merge(added(random_activations(0, units=5)))


def test_a_sum_that_one_part_lacks_is_missing_after_merging():
    full, bare = parts(random_activations(0), sizes=[20, 20])
    bare.magnitude = bare.moments = None
    merged = full.merge(bare)
    assert merged.magnitude is None and merged.moments is None and merged.gradient is not None
    assert NAMES - set(merged.figures()) == {"dormant_0", "dormant_0025", "dormant_01", "constant"}
    with pytest.raises(UsageError, match="dormant units need the magnitudes, which were not counted"):
        merged.dormant(0.1)


def test_plain_counts_have_no_optional_figures():
    counts = counts_of_batch(np.array([1, 0]), np.array([1, 2]), np.array([0, 2]))
    assert set(counts.figures()) == {row.name for row in OF_COUNTS if not row.needs}


def test_json_and_back():
    finite = np.ones(40, bool)
    finite[3] = False
    for counts in (added(random_activations(0), finite), Counts.empty(3)):
        again = Counts.from_dict(json.loads(json.dumps(counts.to_dict())))
        assert again.to_dict() == counts.to_dict()
        assert again.unknown == counts.unknown
    census = Census({"a": added(random_activations(0)), "b": Counts.empty(2)})
    again = Census.from_dict(json.loads(json.dumps(census.to_dict())))
    assert again.layers["a"].figures() == census.layers["a"].figures()
    assert again.layers["a"].active.dtype == np.int64 and again.layers["a"].magnitude.dtype == np.float64
    equal(
        again.layers["a"].merge(added(random_activations(2))),
        added(random_activations(0)).merge(added(random_activations(2))),
    )
    with pytest.raises(UsageError, match="counts have no 'activ'"):
        Counts.from_dict({"activ": [1]})


def test_moments_of_large_means_do_not_cancel():
    rng = np.random.default_rng(0)
    values = np.stack([np.full(1000, 1e8), 1e8 + rng.normal(size=1000), rng.normal(size=1000)], 1)
    moments = [Moments(len(v), v.mean(0), ((v - v.mean(0)) ** 2).sum(0)) for v in np.split(values, [3, 500])]
    merged = moments[2].merge(moments[0]).merge(moments[1])
    np.testing.assert_allclose(merged.variance, values.var(0), rtol=1e-7)
    assert merged.variance[0] == 0 and merged.values == 1000


def test_dormant_by_the_share_of_the_layers_mean():
    counts = counts_of_batch(np.array([0]), np.ones(4), np.ones(4), magnitude=np.array([0, 0.1, 1, 2.9]))
    assert counts.scores.tolist() == [0, 0.1, 1, 2.9]
    assert counts.dormant(0).tolist() == [True, False, False, False]
    assert counts.dormant(0.1).tolist() == [True, True, False, False]
    counts.magnitude = np.zeros(4)
    assert counts.dormant(0).all()


def test_a_class_without_inputs_has_no_dead_units():
    counts = counts_of_batch(
        np.array([1, 1]),
        np.array([2, 0]),
        np.zeros(2),
        class_inputs=np.array([2, 0]),
        class_active=np.array([[2, 0], [0, 0]]),
    )
    assert not counts.class_dead.any()
    assert np.isnan(counts.class_activity[1]).all() and counts.class_activity[0].tolist() == [1, 0]


def test_a_census_merges_layer_by_layer():
    halves = [
        Census({"a": part, n: part})
        for n, part in zip("bc", parts(random_activations(0), sizes=[20, 20]), strict=True)
    ]
    merged = halves[0].merge(halves[1])
    assert list(merged.layers) == ["a", "b", "c"]
    assert [c.inputs for c in merged.layers.values()] == [40, 20, 20]
    assert set(merged.figures(["dataset"])) == {f"dead/{name}/dataset" for name in "abc"}


def test_rule_of_three():
    assert added(random_activations(0, inputs=300)).bound == 0.01
    assert added(random_activations(0, inputs=2)).bound == 1.0
    # the rule approximates the exact bound 1 - 0.05 ** (1 / N)
    assert added(random_activations(0, inputs=1000)).bound == pytest.approx(1 - 0.05 ** (1 / 1000), rel=5e-3)


def test_nan_is_never_dead():
    finite = np.ones(40, bool)
    finite[[7, 9]] = False
    counts = added(np.zeros((40, 1, 5)), finite, sizes=[5, 35])
    assert counts.unknown == "values are not finite on 2 inputs, first on input 7, at layer7"
    assert set(counts.figures()) == NAMES and all(np.isnan(list(counts.figures().values())))
    counts = added(np.zeros((40, 1, 5)))
    counts.bad_weights = "fc/kernel"
    assert counts.unknown == "the model's weights are not finite, first fc/kernel"
    assert "weights" in Counts.empty(5).merge(counts).unknown


def test_a_count_of_zero_inputs_is_unknown():
    assert Counts.empty(3).unknown == "no inputs were counted"
    assert np.isnan(Counts.empty(3).figures()["dataset"])


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


def test_masks_and_the_indices_of_their_units():
    counts = added(random_activations(0))
    assert set(counts.masks) == {"dead", "rarely_active", "always_on", "constant", "gradient_dead", "cloned"}
    assert counts.indices("dead").tolist() == [0] and counts.indices("always_on").tolist() == [1]
    assert counts.indices("constant").tolist() == [0, 1]
    plain = counts_of_batch(np.array([1, 0]), np.array([1, 2]), np.array([0, 2]))
    with pytest.raises(UsageError, match="mask 'ded' was not counted; did you mean 'dead'"):
        plain.indices("ded")
    assert set(plain.masks) == {"dead", "rarely_active", "always_on"}


def test_a_threshold_of_rare_activity_is_a_share_of_the_inputs():
    counts = counts_of_batch(np.zeros(20, int), np.array([0, 1, 2, 20]), np.zeros(4))
    assert counts.active_below(0.1).tolist() == [True, True, False, False]
    assert counts.active_below(0.05).tolist() == [True, False, False, False]
    assert counts.active_below(1).tolist() == [True, True, True, False]
    for share in (0, -1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"share must be in \(0, 1\], got"):
            counts.active_below(share)


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
