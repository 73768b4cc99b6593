import json

import numpy as np
import pytest

from bnhead.census.changes import History, changes
from bnhead.census.figures import OF_CHANGES
from bnhead.errors import UsageError
from tests.census.batches import counts_of_batch

pytestmark = pytest.mark.quick


def units(*numbers):
    return np.isin(np.arange(6), numbers)


def test_each_kind_of_change():
    # dead before 0 1 2, dead now 2 3; 0 had been active earlier, 1 and 2 never
    result = changes(units(0, 1, 2), units(2, 3), units(0, 3, 4, 5))
    assert result.born.tolist() == units(1).tolist()
    assert result.revived.tolist() == units(0).tolist()
    assert result.died.tolist() == units(3).tolist()
    assert result.figures() == {
        "births": 1 / 6,
        "deaths": 1 / 6,
        "revivals": 1 / 6,
        "persistence": pytest.approx(1 / 3),
    }
    assert list(result.figures()) == [row.name for row in OF_CHANGES]


def test_without_a_past_who_comes_alive_is_born():
    result = changes(units(0, 1), units(1))
    assert result.born.tolist() == units(0).tolist() and not result.revived.any()
    assert result.persistence == 0.5
    assert np.isnan(changes(units(), units(1)).persistence)


def counts_of(active, inputs):
    """Counts of a layer from the number of inputs on which each unit is active."""
    silent = [sum(n <= i for n in active) for i in range(inputs)]
    return counts_of_batch(np.array(silent), np.array(active), np.zeros(len(active), int))


def test_a_history_tells_birth_from_revival():
    history = History()
    # unit 0: dead, active, dead, active; unit 1: dead to the end; unit 2: always active
    counts = [[0, 0, 5], [3, 0, 5], [0, 0, 5], [1, 0, 5]]
    for epoch, active in enumerate(counts, start=1):
        history.add(epoch, counts_of(active, 5))
    figures = {name: values[1:] for name, values in history.figures.items()}
    assert all(np.isnan(history.figures[name][0]) for name in ("births", "deaths", "revivals", "persistence"))
    assert figures["births"] == [1 / 3, 0, 0] and figures["revivals"] == [0, 0, 1 / 3]
    assert figures["deaths"] == [0, 1 / 3, 0] and figures["persistence"] == [0.5, 1, 0.5]
    assert history.figures["dataset"] == [2 / 3, 1 / 3, 2 / 3, 1 / 3]
    np.testing.assert_allclose(history.activity, np.array(counts) / 5, rtol=1e-6)
    assert repr(history) == "<History: 3 units, 4 counts>"


def test_an_unknown_count_changes_nothing():
    history, unknown = History(), counts_of([0, 2], 2)
    unknown.nonfinite = 1
    for epoch, counts in enumerate((counts_of([0, 2], 2), unknown, counts_of([0, 0], 2)), start=1):
        history.add(epoch, counts)
    assert np.isnan([history.figures["dataset"][1], history.figures["deaths"][1]]).all()
    assert history.latest["deaths"] == 0.5 and history.latest["persistence"] == 1
    assert history.epochs == [1, 2, 3] and np.isnan(history.activity[1]).all()


def test_a_figure_that_some_counts_lack_is_nan_there():
    history, labelled = History(), counts_of([1, 2], 2)
    labelled.class_inputs, labelled.class_active = np.array([1, 1]), np.array([[0, 1], [1, 1]])
    for epoch, counts in enumerate((counts_of([1, 2], 2), labelled, counts_of([1, 2], 2)), start=1):
        history.add(epoch, counts)
    assert np.isnan(history.figures["class_dead"]).tolist() == [True, False, True]
    assert history.figures["class_dead"][1] == 0.5


def test_a_history_survives_json_and_is_a_data_frame():
    history = History()
    history.add(1, counts_of([0, 2], 2))
    history.add(4, counts_of([0, 0], 2))
    again = History.from_dict(json.loads(json.dumps(history.to_dict())))
    again.add(5, counts_of([1, 0], 2))
    assert again.latest["births"] == 0.5 and again.figures["deaths"][1] == 0.5
    frame = history.to_frame()
    assert list(frame.index) == [1, 4] and frame["dataset"].tolist() == [0.5, 1]


def test_counts_on_other_numbers_of_inputs_are_not_compared():
    history = History()
    for epoch, (active, inputs) in enumerate([([0, 2], 4), ([0, 0], 2), ([1, 0], 2)], start=1):
        history.add(epoch, counts_of(active, inputs))
        history = History.from_dict(json.loads(json.dumps(history.to_dict())))
    assert history.inputs == [4, 2, 2] and history.to_frame()["inputs"].tolist() == [4, 2, 2]
    for name, last in {"births": 0.5, "deaths": 0, "revivals": 0, "persistence": 0.5}.items():
        assert np.isnan(history.figures[name][:2]).all() and history.figures[name][2] == last


def test_the_raster_needs_a_count():
    with pytest.raises(UsageError, match="plot_raster needs at least one count"):
        History().plot_raster()


def test_masks_of_unequal_length():
    with pytest.raises(UsageError, match="masks must have one length"):
        changes(units(), np.zeros(5, bool))
