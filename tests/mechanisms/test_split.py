import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.mechanisms import Affine, Split
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net

HEADS = ["fc8", "bn_fc8", "fc8_bn", "fc8_out_bn", "bn_out", "out", "fastai", "bnneck", "bn-beta-gamma_fc8"]
TOKENS = ["bn", "gbn4", "brn", "fbn", "center", "scale", "noise"]


@pytest.mark.parametrize("head", [*HEADS, *(f"{t}_fc8" for t in TOKENS), "bn_gap_fc8", "center_gap_out"])
def test_the_parts_compute_what_the_model_does(head):
    model, (x, _) = image_net(head), images()
    split = Split(model)
    outputs = split.outputs(split.features(x), split.evaluation())
    expected = numpy(model(x, training=False))
    assert np.abs(outputs["logits"] - expected).max() < 1e-4 * np.abs(expected).max()
    assert split.is_current and split.output.name == "head_out"


@pytest.mark.parametrize("token", ["bn", "bn-beta", "bn-gamma", "gbn60", "center", "scale", "bn-beta-gamma"])
@pytest.mark.parametrize("place", ["{}_fc8", "fc8_{}", "fc8_out_{}"])
def test_a_batchs_statistics_give_what_training_mode_does(token, place):
    """In a net with no other norm and no dropout."""
    model, (x, _) = vector_net(place.format(token)), data(60)
    split = Split(model)
    features = split.features(x)
    values = features["features"].astype("float64")
    affine = split.affine(values.mean(0), values.var(0))
    with keras.StatelessScope():
        expected = numpy(model(x, training=True))
    np.testing.assert_allclose(split.outputs(features, affine)["logits"], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(numpy(model(x, training=False)) - expected).max() > 0.05


def test_statistics_of_a_feature_map_are_over_its_positions():
    model, (x, _) = image_net("bn_gap_fc8"), images()
    split = Split(model)
    features = split.features(x)
    values = features["features"]
    assert values.shape == (60, 2, 2, 64)
    affine = split.affine(values.mean((0, 1, 2)), values.var((0, 1, 2)))
    norm = model.get_layer("head_bn")
    head = keras.Model(norm.output, model.output)
    with keras.StatelessScope():
        expected = numpy(head(norm(keras.ops.convert_to_tensor(values), training=True)))
    np.testing.assert_allclose(split.outputs(features, affine)["logits"], expected, rtol=1e-3, atol=1e-3)


def test_each_example_may_have_its_own_statistics():
    model, (x, _) = vector_net("bn_fc8"), data(5)
    split, rng = Split(model), np.random.default_rng(3)
    features = split.features(x)
    means, variances = rng.normal(size=(5, 10)), rng.uniform(0.5, 2, (5, 10))
    together = split.outputs(features, split.affine(means, variances))["logits"]
    for i in range(5):
        one = {key: value[i : i + 1] for key, value in features.items()}
        alone = split.outputs(one, split.affine(means[i], variances[i]))["logits"]
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", ["fc8", "noise_fc8", "out"])
def test_without_a_norm_the_inserted_one_is_the_identity_for_the_population(head):
    model, (x, _) = vector_net(head), data(50)
    split = Split(model)
    features = split.features(x)
    values = features["features"].astype("float64")
    around = values.mean(0), values.var(0)
    plain = split.outputs(features, split.evaluation())["logits"]
    np.testing.assert_allclose(
        split.outputs(features, split.affine(*around, around))["logits"], plain, rtol=1e-4, atol=1e-5
    )
    other = split.affine(around[0] + 1, around[1] * 4, around)
    expected = (values - around[0] - 1) / 2 + around[0]
    np.testing.assert_allclose(other(values), expected, rtol=1e-4, atol=1e-4)


def test_what_the_parts_return():
    split = Split(vector_net("bn_fc8"))
    features = split.features(data(7)[0])
    assert set(features) == {"features"}
    outputs = split.outputs(features, split.evaluation())
    assert outputs["fc"].shape == (7, 10) and outputs["output"].shape == (7, 8)
    hidden = np.maximum(outputs["fc"] @ numpy(split.fc.kernel) + numpy(split.fc.bias), 0)
    np.testing.assert_array_equal(outputs["active"], (hidden > 0).any(0))
    assert (split.name, split.fc.name, split.site.name) == ("head_bn", "head_fc", "head_fc")
    split = Split(vector_net("fc8_bn"))
    assert split.site is None and split.fc.name == "head_out"
    split = Split(vector_net("fc8_out_bn"))
    features = split.features(data(7)[0])
    assert split.fc is None and "fc" not in split.outputs(features, split.evaluation())
    assert features["output"].shape == (7, 8)


def test_the_last_norm_is_cut_unless_one_is_named():
    model = image_net("bn_fc8_bn")
    assert Split(model).name == "head_bn_2" and Split(model, "head_bn").name == "head_bn"
    stem = next(layer.name for layer in model.layers if hasattr(layer, "moving_variance"))
    x, _ = images(4)
    split = Split(model, stem)
    np.testing.assert_allclose(split.outputs(split.features(x), split.evaluation())["logits"],
                               numpy(model(x, training=False)), rtol=1e-3, atol=1e-3)  # fmt: skip


def test_the_norm_of_an_mlp_is_the_one_before_its_last_dense():
    inputs = keras.Input((12,))
    x = keras.layers.BatchNormalization(name="first")(inputs)
    x = keras.layers.BatchNormalization(name="last")(keras.layers.Dense(6, name="hidden")(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Activation("relu")(x))
    split = Split(keras.Model(inputs, keras.layers.Dense(3, name="out")(x)))
    assert (split.name, split.fc.name) == ("last", "out")
    plain = keras.Model(inputs, keras.layers.Dense(3, name="out")(keras.layers.Dense(6)(inputs)))
    assert Split(plain).norm is None and Split(plain).name == "out"


def test_softmax_outputs_become_logits_and_current_weights_are_read():
    inputs = keras.Input((12,))
    norm = keras.layers.BatchNormalization(name="bn")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, "softmax", name="out")(norm))
    x, _ = data(9)
    split = Split(model)
    for _ in range(2):
        logits = split.outputs(split.features(x), split.evaluation())["logits"].astype("float64")
        np.testing.assert_allclose(np.exp(logits), numpy(model(x)), rtol=1e-4, atol=1e-7)
        model.set_weights([w * 0.5 + 0.1 for w in model.get_weights()])


def test_nothing_of_the_model_changes():
    model, (x, _) = image_net("noise_dropout0.5_bn_fc8"), images(8)
    before = [np.array(w) for w in model.get_weights()]
    split = Split(model)
    split.outputs(split.features(x), split.affine(*split.moving))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_models_that_cannot_be_cut():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UsageError, match="must be a built functional or Sequential"):
        Split(Own())
    with pytest.raises(
        UsageError, match="norm 'head_bm': model 'net' has no such batch norm; did you mean 'head_bn'"
    ):
        Split(vector_net("bn_fc8"), "head_bm")
    inputs = keras.Input((12,))
    with pytest.raises(UsageError, match="neither a batch norm nor a Dense"):
        Split(keras.Model(inputs, keras.layers.Activation("relu")(inputs)))
    with pytest.raises(UsageError, match="of one output"):
        Split(keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)]))
    norm = keras.layers.BatchNormalization(name="bn")(inputs)
    bypass = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Add(name="sum")([norm, inputs])))
    with pytest.raises(UsageError, match="layer 'sum' reads tensors that do not come from"):
        Split(bypass, "bn")


def test_the_affine_map_of_statistics():
    x = np.arange(24.0).reshape(2, 3, 4)
    each = Affine(np.array([[1.0] * 4, [2.0] * 4]), np.full(4, 3.0), np.full((2, 4), 5.0))
    expected = (x - np.array([1.0, 2.0]).reshape(2, 1, 1)) * 3 + 5
    np.testing.assert_array_equal(each(x), expected)
