import numpy as np
import pytest

from bnhead.census.changes import History, changes
from bnhead.census.figures import OF_CHANGES
from bnhead.errors import UsageError

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


def test_a_history_tells_birth_from_revival():
    history = History()
    # unit 0: dead, active, dead, active; unit 1: dead to the end; unit 2: always active
    counts = [[0, 0, 5], [3, 0, 5], [0, 0, 5], [1, 0, 5]]
    results = [history.add(epoch, np.array(active), 5) for epoch, active in enumerate(counts)]
    assert results[0] is None
    assert results[1].born.tolist() == [True, False, False] and not results[1].revived.any()
    assert results[2].died.tolist() == [True, False, False] and results[2].persistence == 1
    assert results[3].revived.tolist() == [True, False, False] and not results[3].born.any()
    assert results[3].persistence == 0.5
    np.testing.assert_allclose(history.activity, np.array(counts) / 5, rtol=1e-6)


def test_an_unknown_count_changes_nothing():
    history = History()
    history.add(1, np.array([0, 2]), 2)
    history.skip(2, 2)
    result = history.add(3, np.array([0, 0]), 2)
    assert result.died.tolist() == [False, True] and result.persistence == 1
    assert history.epochs == [1, 2, 3] and np.isnan(history.activity[1]).all()


def test_masks_of_unequal_length():
    with pytest.raises(UsageError, match="masks must have one length"):
        changes(units(), np.zeros(5, bool))
