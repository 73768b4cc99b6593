import keras
import numpy as np
import pytest
from keras import layers

from bnhead.layers import recompute_batch_stats
from bnhead.lint.linter import check
from tests.lint.nets import CLASSES, X, findings, norm, sequential, the_finding


def test_bias_before_norm():
    found = the_finding(sequential(layers.Dense(16, name="fc"), norm()), "BN101", data=None)
    assert found.where == ("fc",) and found.value == pytest.approx(16 / (16 * 16 + 16 + 32 + 16 * 4 + 4))
    assert "16 bias values of 1 layer" in found.what
    conv = sequential(layers.Conv2D(4, 3, name="conv"), norm(), layers.Flatten(), inputs=(4, 4, 1))
    assert the_finding(conv, "BN101", data=None).where == ("conv",)


def test_a_small_share_is_an_info():
    model = sequential(layers.Dense(256, use_bias=False), layers.ReLU(), layers.Dense(16, name="fc"), norm())
    assert the_finding(model, "BN101", data=None, severity="info").value < 0.01


@pytest.mark.parametrize(
    "parts",
    [
        (layers.Dense(16, use_bias=False), norm()),
        (layers.Dense(16, "relu"), norm()),  # the norm reads what the activation makes of the bias
        (layers.Dense(16), layers.Dropout(0.5), norm()),  # dropout of the bias varies
        (layers.Dense(16), norm(trainable=False)),  # fixed statistics do not subtract it
        (layers.Dense(16), layers.LayerNormalization()),
    ],
    ids=["no bias", "activation", "dropout", "frozen norm", "layer norm"],
)
def test_a_bias_with_effect(parts):
    assert not findings(sequential(*parts), "BN101", data=None)


def test_a_bias_that_another_layer_reads_too():
    inputs = keras.Input((16,))
    x = layers.Dense(16)(inputs)
    assert not findings(keras.Model(inputs, layers.Add()([norm()(x), x])), "BN101", data=None)


def shared(scale):
    bn, first, second = norm(), keras.Input((16,)), keras.Input((16,))
    model = keras.Model([first, second], layers.Dense(2)(layers.Concatenate()([bn(first), bn(second)])))
    return model, [X, scale * X[::-1].copy() + (scale - 1)]


def test_shared_norm():
    model, x = shared(2.0)
    found = the_finding(model, "BN102", data=x)
    # the means are 1 apart, the deviation of the mixture of variances 1 and 4 is sqrt(2.5)
    assert found.value == pytest.approx(1, abs=0.05) and found.where == ("bn",)  # log2 of a factor of 2
    model, x = shared(1.0)
    assert the_finding(model, "BN102", data=x, severity="info").value < 0.1
    assert the_finding(model, "BN102", data=None, severity="info").value is None
    assert not findings(sequential(norm(name="a"), norm(name="b")), "BN102")


def regression(*last, loss="mse"):
    model = sequential(layers.Dense(32, "relu"), *last, outputs=0)
    model.compile(loss=loss)
    return model


def test_norm_on_regression_output():
    target = (50 + 10 * X[:, 0]).astype("float32")
    found = the_finding(regression(layers.Dense(1), norm()), "BN103", data=(X, target))
    # outputs have mean 0, targets 50 with a deviation of 10
    assert found.value == pytest.approx(5, abs=0.3) and found.where == ("bn",)
    assert "targets have mean 49.6 and deviation 9.93" in found.what
    standard = (target - target.mean()) / target.std()
    data = (X, standard)
    assert the_finding(regression(layers.Dense(1), norm()), "BN103", data=data, severity="info").value < 0.1
    scaled = regression(layers.Dense(1), norm(), layers.Rescaling(target.std(), target.mean()))
    assert the_finding(scaled, "BN103", data=(X, target), severity="info").value < 0.1


def test_no_norm_on_a_regressions_output():
    target = (50 + 10 * X[:, 0]).astype("float32")
    assert not findings(regression(norm(), layers.Dense(1)), "BN103", data=(X, target))
    classes = sequential(layers.Dense(4), norm(), outputs=0)
    classes.compile(loss="sparse_categorical_crossentropy")
    assert not findings(classes, "BN103", data=(X, CLASSES))


def fitted():
    model = sequential(layers.Dense(8, use_bias=False, name="fc"), norm())
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X[:120], CLASSES[:120], batch_size=60, verbose=0)
    return model


def test_frozen_after_compile():
    model = fitted()
    assert not findings(model, "BN301")
    model.get_layer("bn").trainable = False
    found = the_finding(model, "BN301", severity="error")
    assert (found.where, found.value) == (("bn",), 2) and "1 batch norm among them, frozen" in found.what
    # and the change has no effect, as the finding says: the averages move on
    before = np.array(model.get_layer("bn").moving_mean)
    model.fit(X[:120] + 1, CLASSES[:120], batch_size=60, verbose=0)
    assert np.abs(before - np.array(model.get_layer("bn").moving_mean)).max() > 0.01
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert check(model, (X, CLASSES), select=["BN301"]).missing, "the next fit traces a new step"
    before = np.array(model.get_layer("bn").moving_mean)
    model.fit(X[:120] + 1, CLASSES[:120], batch_size=60, verbose=0)
    assert np.array_equal(before, np.array(model.get_layer("bn").moving_mean))
    assert not findings(model, "BN301")
    model.get_layer("bn").trainable = True
    assert "thawed since compile" in the_finding(model, "BN301", severity="error").what


def test_freezing_before_the_first_fit_takes_effect():
    model = sequential(layers.Dense(8, name="fc"), norm())
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.get_layer("bn").trainable = False
    assert not findings(model, "BN301")


def backbone(shift):
    """A frozen layer and a norm whose averages are of data that lie elsewhere."""
    model = sequential(layers.Dense(8, name="fc"), norm(), layers.ReLU())
    recompute_batch_stats(model, X + shift)
    model.get_layer("fc").trainable = False
    return model


def test_norm_behind_frozen_layers():
    found = the_finding(backbone(1.0), "BN302")
    assert found.where == ("bn",) and "fc before it is frozen" in found.what and found.value > 0.25
    assert the_finding(backbone(0.0), "BN302", severity="info").value < 0.1
    assert the_finding(backbone(1.0), "BN302", data=None, severity="info").value is None
    frozen = backbone(1.0)
    frozen.get_layer("bn").trainable = False
    assert not findings(frozen, "BN302")
    thawed = backbone(1.0)
    thawed.get_layer("fc").trainable = True
    assert not findings(thawed, "BN302")


def test_a_new_norm_on_frozen_features_learns_its_averages():
    model = sequential(layers.Dense(8, name="fc"), layers.ReLU(), norm())
    model.get_layer("fc").trainable = False
    assert not findings(model, "BN302")
