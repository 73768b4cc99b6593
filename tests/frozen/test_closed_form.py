"""The optimum of linear heads: its gradient vanishes, and the geometry of the penalty is as stated."""

import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.frozen.closed_form import INVERSE_PENALTIES, best_linear_head, scales

EXAMPLES, CLASSES = 400, 3


def data(seed=0):
    """Feature 0 varies little and tells the classes apart; feature 1 varies much and tells nothing."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, EXAMPLES)
    noise = generator.standard_normal((EXAMPLES, 4))
    x = np.stack(
        [0.05 * (labels - 1) + 0.02 * noise[:, 0], 10 * noise[:, 1] + 30, noise[:, 2], noise[:, 3]], 1
    )
    return x + 1.0, labels


def gradient(head, x, labels, price):
    """Of |W|^2 / 2 + C sum of the losses, by hand."""
    logits = x @ head.weights + head.bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1
    of_weights = head.weights * price[:, None] + head.inverse_penalty * (x.T @ shares)
    return of_weights, head.inverse_penalty * shares.sum(0)


@pytest.mark.parametrize("text", ["out", "bn_out", "center_out", "scale_out"])
def test_the_gradient_vanishes_at_the_optimum(text):
    x, labels = data()
    head = best_linear_head(text, x, labels, inverse_penalties=[0.1], epsilon=1e-3)
    price = x.var(0) + 1e-3 if text in ("bn_out", "scale_out") else np.ones(4)
    np.testing.assert_allclose(head.price, price, rtol=1e-12)
    of_weights, of_bias = gradient(head, x, labels, price)
    assert np.abs(of_weights).max() < 1e-4 and np.abs(of_bias).max() < 1e-4
    assert head.penalty == pytest.approx((head.weights**2 * price[:, None]).sum() / 2)
    assert head.held_out_accuracies == ()


def test_centring_changes_nothing_and_division_by_the_deviation_does():
    x, labels = data()
    fits = {
        text: best_linear_head(text, x, labels, inverse_penalties=[0.01])
        for text in ("out", "center_out", "scale_out", "bn_out", "fbn_out")
    }
    np.testing.assert_allclose(fits["center_out"].outputs(x), fits["out"].outputs(x), atol=1e-4)
    np.testing.assert_allclose(fits["bn_out"].outputs(x), fits["scale_out"].outputs(x), atol=1e-4)
    np.testing.assert_array_equal(fits["bn_out"].weights, fits["fbn_out"].weights)
    # the informative feature has a deviation of .05: its weight is dear, and cheap after the division
    assert fits["out"].accuracy(x, labels) < 0.6 and fits["bn_out"].accuracy(x, labels) > 0.75


def test_epsilon_decides_how_cheap_small_features_are():
    x, labels = data()
    norms = [
        np.abs(best_linear_head("bn_out", x, labels, inverse_penalties=[0.01], epsilon=e).weights[0]).max()
        for e in (1e-5, 1e-3, 1e-1)
    ]
    assert norms[0] > 1.1 * norms[1] > 4 * norms[2]


def test_without_a_penalty_all_are_one():
    generator = np.random.default_rng(1)
    z = generator.standard_normal((EXAMPLES, 3))
    labels = (z @ [[0.5, -0.5], [0.5, -0.5], [0.6, -0.6]] + generator.gumbel(size=(EXAMPLES, 2))).argmax(1)
    x = z * [0.1, 1.0, 3.0] + [1.0, 0.0, 5.0]
    outputs = [
        best_linear_head(text, x, labels, inverse_penalties=[1e6]).outputs(x) for text in ("out", "bn_out")
    ]
    differences = [logits[:, 1] - logits[:, 0] for logits in outputs]
    np.testing.assert_allclose(*differences, atol=2e-3)


def test_every_head_gets_its_penalty():
    x, labels = data()
    penalties = (1e-4, 1e-2, 1.0, 100.0)
    raw, normed = (
        best_linear_head(text, x, labels, inverse_penalties=penalties) for text in ("out", "bn_out")
    )
    assert raw.inverse_penalty == 100.0 > normed.inverse_penalty
    assert len(raw.held_out_accuracies) == 4 and raw.converged
    best = penalties[int(np.argmax(normed.held_out_accuracies))]
    assert normed.inverse_penalty == best
    assert min(raw.accuracy(*data(2)), normed.accuracy(*data(2))) > 0.8


def test_protocol_and_errors():
    assert len(INVERSE_PENALTIES) == 45
    assert INVERSE_PENALTIES[0] == pytest.approx(1e-6) and INVERSE_PENALTIES[-1] == pytest.approx(1e5)
    x, labels = data()
    with pytest.raises(UsageError, match="closed form; out and bn_out"):
        best_linear_head("bn_fc", x, labels)
    with pytest.raises(UsageError, match="2 classes"):
        best_linear_head("out", x, np.zeros(EXAMPLES, int))
    np.testing.assert_allclose(scales("scale_out", x, 0.5), np.sqrt(x.var(0) + 0.5))
    np.testing.assert_array_equal(scales("center_out", x, 0.5), 1)
