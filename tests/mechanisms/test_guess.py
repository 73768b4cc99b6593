import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.mechanisms.guess import GuessSums, initial_guess, neutralise, training_logits
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net


def test_figures_of_known_answers():
    logits = np.zeros((8, 4))
    logits[np.arange(8), [0, 0, 0, 0, 1, 1, 2, 2]] = 3.0
    sums = GuessSums(4)
    sums.add(logits[:3], np.array([0, 0, 1]))
    sums.add(logits[3:], np.array([2, 3, 3, 3, 3]))
    guess = sums.result()
    assert (guess.modal_share, guess.classes, guess.prior) == (0.5, 3, 0.5)
    assert guess.entropy == pytest.approx(1.5 * np.log(2) / np.log(4))
    right, wrong = np.log(np.exp(3) + 3) - 3, np.log(np.exp(3) + 3)
    assert guess.loss == pytest.approx((2 * right + 6 * wrong) / 8 / np.log(4))
    assert not guess.is_prejudiced


def test_a_net_that_gives_one_answer():
    sums = GuessSums(10)
    sums.add(np.eye(10)[[3] * 20], np.arange(20) % 10)
    guess = sums.result()
    assert (guess.modal_share, guess.entropy, guess.classes) == (1.0, 0.0, 1) and guess.is_prejudiced
    unlabelled = GuessSums(10)
    unlabelled.add(np.eye(10), None)
    assert np.isnan(unlabelled.result().loss) and unlabelled.result().entropy == pytest.approx(1)


def test_logits_are_those_of_a_training_step_and_nothing_changes():
    model, (x, y) = image_net("bn_fc8"), images(20)
    before = [np.array(w) for w in model.get_weights()]
    parts = list(training_logits(model, (x, y), batch_size=12))
    assert [len(logits) for logits, _ in parts] == [12, 8]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with keras.StatelessScope():
        expected = numpy(model(x[:12], training=True))
    np.testing.assert_allclose(parts[0][0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", ["fc8", "bn_fc8", "fc8_bn", "out", "fc8_out_bn"])
def test_a_neutral_bias_makes_the_mean_logits_the_log_prior(head):
    model, (x, y) = vector_net(head), data()
    before = {w.path: np.array(w.numpy() if hasattr(w, "numpy") else w) for w in model.weights}
    change = neutralise(model, (x, y), batch_size=120)
    logits = next(training_logits(model, (x, y), batch_size=120))[0]
    np.testing.assert_allclose(logits.mean(0), np.log(np.bincount(y) / 120), atol=1e-4)
    changed = [
        w.path for w in model.weights if not np.array_equal(before[w.path], numpy(w).astype("float32"))
    ]
    assert len(changed) == 1 and changed[0].endswith(("head_out/bias", "head_bn/beta"))
    assert change.shape == (4,)


def test_a_neutral_guess_is_less_prejudiced():
    from bnhead.models import resnet8

    x, y = images(100)
    model = resnet8((8, 8, 1), "fc", 5, seed=0)
    before = initial_guess(model, (x, y))
    neutralise(model, (x, y))
    after = initial_guess(model, (x, y))
    assert before.is_prejudiced and after.modal_share < 0.8 * before.modal_share
    assert after.loss < before.loss


def test_priors():
    model, (x, _) = vector_net("fc8"), data()
    neutralise(model, x, [1, 2, 3, 4], batch_size=120)
    logits = next(training_logits(model, x, batch_size=120))[0]
    np.testing.assert_allclose(logits.mean(0), np.log(np.array([1, 2, 3, 4]) / 10), atol=1e-4)
    neutralise(model, x, [0.5, 0.1, 0.9, 0.2], batch_size=120, independent=True)
    logits = next(training_logits(model, x, batch_size=120))[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.mean(0))), [0.5, 0.1, 0.9, 0.2], atol=1e-4)
    neutralise(model, x, [1, 0, 1, 0], batch_size=120)  # finite for a class without examples
    assert np.isfinite(next(training_logits(model, x))[0]).all()


def test_models_and_data_without_what_is_needed():
    x, y = data()
    with pytest.raises(UsageError, match="output layer with a bias"):
        neutralise(vector_net("fc8_out-bias"), (x, y))
    with pytest.raises(UsageError, match="prior must have a share of each of the 4 classes"):
        neutralise(vector_net("fc8"), x)
    with pytest.raises(UsageError, match="prior must have a share of each of the 4 classes"):
        neutralise(vector_net("fc8"), x, [0.5, 0.5])
    inputs = keras.Input((12,))
    with pytest.raises(UsageError, match="must have outputs"):
        initial_guess(keras.Model(inputs, keras.layers.Dense(1)(inputs)), x)
