import keras
import numpy as np
import pytest
from keras import layers

from bnhead.layers import recompute_batch_stats
from tests.lint.nets import RNG, X, findings, norm, sequential, the_finding


def test_dropout_before_norm():
    model = sequential(layers.Dropout(0.5, name="drop"), norm())
    found = the_finding(model, "BN401")
    # centred features: the variance in training is 1 / keep times that in inference
    assert found.value == pytest.approx(2, abs=0.1) and found.where == ("bn",)
    assert "drop, rate 0.5, makes the variance in training" in found.what
    assert the_finding(model, "BN401", data=None, severity="info").value is None
    assert the_finding(sequential(layers.Dropout(0.04), norm()), "BN401", severity="info").value < 1.1
    assert not findings(sequential(norm(), layers.Dropout(0.5)), "BN401")
    assert not findings(sequential(layers.Dropout(0.5), norm(trainable=False)), "BN401")


def test_a_norm_between_does_not_hide_the_shift():
    """In inference the first norm divides by the deviation of training, so the second one sees the shift."""
    model = sequential(layers.Dropout(0.5), norm(name="first"), norm(name="second"))
    (found,) = findings(model, "BN401")
    assert set(found.where) == {"first", "second"} and found.value == pytest.approx(2, abs=0.1)


def test_dropout_on_a_parallel_branch():
    inputs = keras.Input((16,))
    y = layers.Add()([norm()(layers.Dense(8)(inputs)), layers.Dropout(0.5)(layers.Dense(8)(inputs))])
    assert not findings(keras.Model(inputs, y), "BN401")


def test_large_epsilon():
    small = (0.01 * X, None)  # a variance of 1e-4
    found = the_finding(sequential(norm(epsilon=1e-3)), "BN402", data=small[0])
    assert found.value == 1 and "the median, 9.7e-05, leaves with a deviation of 0.30 gamma" in found.what
    assert not findings(sequential(norm(epsilon=1e-6)), "BN402", data=small[0])
    assert not findings(sequential(norm(epsilon=1e-3)), "BN402")
    some = X * np.where(np.arange(16) < 4, 0.01, 1).astype("float32")
    assert the_finding(sequential(norm(epsilon=1e-3)), "BN402", data=some, severity="info").value == 0.25


def test_constant_features():
    constant = X.copy()
    constant[:, :4] = 7.3
    found = the_finding(sequential(norm()), "BN403", data=constant)
    assert found.value == 0.25 and "4 of 16 channels constant on 540 examples" in found.what
    constant[:, :4] = X[:, :4]
    constant[:, 0] = 7.3
    assert the_finding(sequential(norm()), "BN403", data=constant, severity="info").value == 1 / 16
    constant[:, 0] += 1e-3 * X[:, 0]
    assert not findings(sequential(norm()), "BN403", data=constant)


def rare(share):
    """16 features; each is above 0 on this share of the examples."""
    active = np.stack([RNG.permutation(600) < share * 600 for _ in range(16)], axis=1)
    return np.where(active, np.abs(X) + 0.1, 0).astype("float32")


def test_rare_features():
    found = the_finding(sequential(norm()), "BN404", data=rare(0.02))  # 1.2 of 60
    assert (
        found.value > 0.9
        and "16 of 16 channels have fewer than 3 active examples in a batch of 60" in found.what
    )
    assert not findings(sequential(norm()), "BN404", data=rare(0.1))  # 6 of 60
    assert not findings(sequential(norm()), "BN404", data=rare(0.02), batch_size=300)  # 6 of 300
    assert not findings(sequential(norm()), "BN404", data=rare(0.02) - 1), "not the output of a ReLU"
    mixed = np.concatenate([rare(0.02)[:, :1], rare(0.3)[:, 1:]], axis=1)
    assert the_finding(sequential(norm()), "BN404", data=mixed, severity="info").value == 1 / 16


def trained_norm(x):
    model = sequential(norm())
    recompute_batch_stats(model, x)
    return model


def test_moving_variance_out_of_range():
    found = the_finding(trained_norm(3 * X), "BN405")  # 9 times the variance
    assert found.value == 1 and "the moving variance is 9" in found.what
    assert not findings(trained_norm(1.5 * X), "BN405")
    assert not findings(sequential(norm()), "BN405"), "of a new norm they say nothing"
    model = trained_norm(X)
    variance = np.array(model.get_layer("bn").moving_variance)
    for value in (-0.1, np.nan, np.inf):
        model.get_layer("bn").moving_variance.assign(np.where(np.arange(16) == 3, value, variance))
        assert the_finding(model, "BN405").what == "1 moving average negative or not finite"
    some = X * np.where(np.arange(16) < 4, 3, 1).astype("float32")
    assert the_finding(trained_norm(some), "BN405", severity="info").value == 0.25


def dead(number, kernel=1.0, bias=-100.0):
    model = sequential(layers.Dense(20, "relu", name="first"), layers.Dense(20, "relu", name="fc"))
    fc = model.get_layer("fc")
    weights, offsets = map(np.array, fc.get_weights())
    weights[:, :number] = -np.abs(weights[:, :number]) * kernel
    offsets[:number] = bias
    fc.set_weights([weights, offsets])
    return model


def test_dead_units_by_cause():
    found = the_finding(dead(15), "BN501")
    assert found.where == ("fc",) and found.value == 0.75
    assert (
        "15 of 20 units silent on 540 examples: 0 by their weights, 15 by their bias, 0 unused here"
        in found.what
    )
    by_weights = the_finding(dead(15, kernel=0.0, bias=0.0), "BN501")
    assert "15 by their weights, 0 by their bias" in by_weights.what
    assert the_finding(dead(5), "BN501", severity="info").value == 0.25
    assert not findings(dead(0), "BN501")
    model = dead(0)
    fc = model.get_layer("fc")
    weights, offsets = map(np.array, fc.get_weights())
    offsets[:12] = -50  # some input could make these fire
    fc.set_weights([np.abs(weights), offsets])
    assert "0 by their bias, 12 unused here" in the_finding(model, "BN501").what
