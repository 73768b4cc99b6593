import numpy as np
import pytest

from bnhead.census.codeath import effective_patterns, phi_matrix, sorted_order

pytestmark = pytest.mark.quick


def phi_of(active):
    active = active.astype(int)
    return phi_matrix(active.T @ active, active.sum(0), len(active))


def test_phi_is_the_correlation_of_the_silences():
    active = np.random.default_rng(0).random((200, 9)) < 0.4
    active[:, 1] = active[:, 0]
    active[:, 2] = ~active[:, 0]
    phi = phi_of(active)
    np.testing.assert_allclose(phi, np.corrcoef(~active.T), atol=1e-12)
    assert phi[0, 1] == pytest.approx(1) and phi[0, 2] == pytest.approx(-1)


def test_units_that_never_change_have_no_phi():
    active = np.random.default_rng(0).random((50, 4)) < 0.5
    active[:, 1], active[:, 3] = False, True
    phi = phi_of(active)
    assert np.isnan(phi[[1, 3]]).all() and np.isnan(phi[:, [1, 3]]).all()
    assert np.isfinite(phi[np.ix_([0, 2], [0, 2])]).all()
    assert sorted_order(phi).tolist()[2:] == [1, 3]


def test_effective_patterns():
    rng = np.random.default_rng(0)
    unit = rng.random(5000) < 0.5
    assert effective_patterns(phi_of(np.tile(unit[:, None], 8))) == pytest.approx(1)
    independent = rng.random((50_000, 8)) < 0.5
    assert effective_patterns(phi_of(independent)) == pytest.approx(8, rel=5e-3)
    blocks = np.repeat(rng.random((50_000, 3)) < 0.5, 4, axis=1)  # three groups of four
    assert effective_patterns(phi_of(blocks)) == pytest.approx(3, rel=5e-3)
    phi = phi_of(rng.random((60, 8)) < 0.3)
    eigenvalues = np.linalg.eigvalsh(phi)
    assert effective_patterns(phi) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert effective_patterns(np.full((3, 3), np.nan)) == 0


def test_the_order_puts_units_that_are_silent_together_side_by_side():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(4), 6))
    active = (rng.random((400, 4)) < 0.5)[:, groups] ^ (rng.random((400, 24)) < 0.05)
    order = sorted_order(phi_of(active))
    assert sorted(order) == list(range(24))
    assert np.count_nonzero(np.diff(groups[order])) == 3  # every group in one piece
    assert np.count_nonzero(np.diff(groups)) > 10
