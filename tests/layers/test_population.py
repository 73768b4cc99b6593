import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.graph import model_calls
from bnhead.layers import population_statistics, recompute_batch_stats
from bnhead.models import resnet8


def images(count=70, seed=0):
    return (np.random.default_rng(seed).normal(size=(count, 8, 8, 1)) * 3 + 1).astype("float32")


def moving(model, name):
    layer = model.get_layer(name)
    return np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)


def reads(model, name, x):
    return np.asarray(keras.Model(model.input, model.get_layer(name).input)(x), "float64")


@pytest.mark.parametrize("token", ["bn", "gbn4", "brn", "center", "scale", "noise"])
@pytest.mark.parametrize("place", ["{}_fc8", "{}_gap_out", "fc8_{}"])
def test_a_heads_statistics_are_the_populations(token, place):
    model, x = resnet8((8, 8, 1), place.format(token), 5, seed=0), images()
    name = f"head_{token.rstrip('0123456789')}"
    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.name != name}
    assert recompute_batch_stats(model, x, "head", batch_size=32) == [name]
    features = reads(model, name, x)
    axes = tuple(range(features.ndim - 1))
    mean, variance = moving(model, name)
    np.testing.assert_allclose(mean, features.mean(axes), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, features.var(axes), rtol=1e-4, atol=1e-6)
    for layer in model.layers:
        if layer.name != name:
            for actual, expected_value in zip(layer.get_weights(), weights[layer.name], strict=True):
                np.testing.assert_array_equal(actual, expected_value)


@pytest.mark.parametrize("batch_size", [1, 7, 70, 500])
def test_every_example_counts_once_whatever_the_batches(batch_size):
    model, x = resnet8((8, 8, 1), "bn_out", 5, seed=0), images()
    recompute_batch_stats(model, x, "head", batch_size=batch_size)
    features = reads(model, "head_bn", x)
    np.testing.assert_allclose(moving(model, "head_bn")[1], features.var(0), rtol=1e-4)


def test_all_norms_of_one_batch_then_predict_what_training_mode_does():
    """With the data in one batch, the recomputed statistics of every norm are those of the batch."""
    model, x = resnet8((8, 8, 1), "bn_fc8_bn", 5, seed=0), images()
    in_training = np.asarray(keras.models.clone_model(model)(x, training=True))
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    in_training = np.asarray(twin(x, training=True))
    assert np.abs(np.asarray(model(x)) - in_training).max() > 0.1
    names = recompute_batch_stats(model, x, batch_size=len(x))
    assert names == [layer.name for layer in model.layers if "bn" in layer.name]
    np.testing.assert_allclose(model(x), in_training, rtol=1e-3, atol=1e-4)


def test_a_data_set_of_pairs_and_other_axes():
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, layers.BatchNormalization(axis=1, name="norm")(inputs))
    x = np.random.default_rng(0).normal(size=(30, 4, 5)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros(30))).batch(8)
    recompute_batch_stats(model, data)
    np.testing.assert_allclose(moving(model, "norm")[0], x.mean((0, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moving(model, "norm")[1], x.var((0, 2)), rtol=1e-4)


def test_masked_values_do_not_count():
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, layers.BatchNormalization(name="norm")(layers.Masking(9.0)(inputs)))
    x = np.random.default_rng(0).normal(size=(30, 4, 5)).astype("float32")
    x[::3, 2:] = 9.0
    recompute_batch_stats(model, x, batch_size=7)
    counted = x[(x != 9.0).any(-1)]
    np.testing.assert_allclose(moving(model, "norm")[0], counted.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moving(model, "norm")[1], counted.var(0), rtol=1e-4)


def test_names_and_the_frozen_ones():
    model, x = resnet8((8, 8, 1), "fbn_fc8_bn", 5, seed=0), images()
    previous = moving(model, "head_bn")
    assert recompute_batch_stats(model, x, "frozen") == ["head_fbn"]
    np.testing.assert_array_equal(moving(model, "head_bn"), previous)
    assert recompute_batch_stats(model, x, ["head_bn"]) == ["head_bn"]
    assert recompute_batch_stats(resnet8((8, 8, 1), "fc", 5), x, "frozen") == []


@pytest.mark.parametrize("token", ["fcenter", "fscale"])
def test_frozen_parts_are_measured_behind_noise_and_keep_their_statistics(token):
    model, x = resnet8((8, 8, 1), f"noise_{token}_fc8", 5, seed=0), images()
    assert recompute_batch_stats(model, x, "frozen", batch_size=len(x)) == [f"head_{token}"]
    twin = resnet8((8, 8, 1), "fbn_fc8", 5, seed=0)
    recompute_batch_stats(twin, x, "frozen", batch_size=len(x))
    for mine, theirs in zip(moving(model, f"head_{token}"), moving(twin, "head_fbn"), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert f"head_{token}" not in recompute_batch_stats(model, x)


def test_population_statistics_are_there_inside_and_gone_after():
    model, x = resnet8((8, 8, 1), "bn_fc8", 5, seed=0), images()
    twin = resnet8((8, 8, 1), "bn_fc8", 5, seed=0)
    recompute_batch_stats(twin, x, "head")
    weights = model.get_weights()
    with population_statistics(model, x, "head") as names:
        assert names == ["head_bn"]
        np.testing.assert_array_equal(moving(model, "head_bn"), moving(twin, "head_bn"))
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_was_trained_with_its_statistics_keeps_them():
    model = resnet8((8, 8, 1), "fbn_fc8_bn", 5, seed=0)
    model.get_layer("stem_bn").trainable = False
    names = recompute_batch_stats(model, images())
    assert "head_fbn" not in names and "stem_bn" not in names and "head_bn" in names


def test_labels_are_not_needed():
    model = resnet8((8, 8, 1), "cdropout0.5_bn_fc8", 3, seed=0, class_counts=[3, 2, 1])
    assert recompute_batch_stats(model, images(), "head") == ["head_bn"]
    predicting = heads.inference(model)
    (call,) = [call for call in model_calls(predicting) if call.operation.name == "head_bn"]
    features = np.asarray(keras.Model(predicting.input, call.inputs[0])(images()))
    np.testing.assert_allclose(moving(model, "head_bn")[0], features.mean(0), rtol=1e-4, atol=1e-6)


def test_numerically_sound_far_from_zero():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.BatchNormalization(name="norm")(inputs))
    x = (np.random.default_rng(0).normal(size=(5000, 3)) + 1000).astype("float32")
    recompute_batch_stats(model, x, batch_size=64)
    np.testing.assert_allclose(moving(model, "norm")[1], x.astype("float64").var(0), rtol=1e-3)


def test_errors_leave_the_model_as_it_was():
    model, x = resnet8((8, 8, 1), "bn_fc8", 5, seed=0), images()
    previous = model.get_weights()
    x[3, 2, 2] = np.nan
    cases = [
        ((x, "head"), "inputs are not all finite"),
        ((images(), "haed"), "has no batch norm 'haed'; did you mean 'head'?"),
        ((images(), ["head_fc"]), "has no batch norm 'head_fc'"),
        ((images()[:0],), "data holds no examples"),
    ]
    for arguments, message in cases:
        with pytest.raises(UsageError, match=message.replace("?", r"\?")):
            recompute_batch_stats(model, *arguments)
        for actual, expected_value in zip(model.get_weights(), previous, strict=True):
            np.testing.assert_array_equal(actual, expected_value)


def test_statistics_that_overflow_on_the_way():
    model = resnet8((8, 8, 1), "bn_fc8", 5, seed=0)
    model.get_layer("stem_bn").gamma.assign(np.full(16, 3e38))
    with pytest.raises(UsageError, match="the statistics that reach layer 'head_bn' are not finite"):
        recompute_batch_stats(model, images(), "head")


def test_a_layer_called_twice_has_no_one_population():
    inputs, norm = keras.Input((3,)), layers.BatchNormalization(name="norm")
    model = keras.Model(inputs, norm(layers.Dense(3)(norm(inputs))))
    with pytest.raises(UsageError, match="'norm' has one set of averages and is called in several places"):
        recompute_batch_stats(model, np.zeros((4, 3), "float32"))


def test_frozen_ones_get_what_training_will_give_them():
    """The backbone's norms then normalise by the batch, so their initial averages have no effect."""
    model, x = resnet8((8, 8, 1), "fbn_fc8", 5, seed=0), images()
    averages = model.get_layer("stem_bn").get_weights()
    recompute_batch_stats(model, x, "frozen", batch_size=len(x))
    z = np.asarray(keras.Model(model.input, model.get_layer("head_fbn").output)(x, training=True))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    spread = z.std(0)
    np.testing.assert_allclose(spread[spread > 0.01], 1, atol=0.02)
    reads = keras.Model(model.input, model.get_layer("head_fbn").input)
    twin = resnet8((8, 8, 1), "fbn_fc8", 5, seed=0)
    for actual, expected_value in zip(averages, twin.get_layer("stem_bn").get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected_value)
    assert np.abs(np.asarray(reads(x)).mean(0) - moving(model, "head_fbn")[0]).max() > 0.05


def test_norms_of_nested_models_are_reached():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(name="inside")])
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    assert recompute_batch_stats(model, x) == ["inside"]
    features = np.asarray(inner.layers[0](x))
    np.testing.assert_allclose(inner.get_layer("inside").moving_mean, features.mean(0), rtol=1e-4, atol=1e-6)


def test_the_members_of_an_ensemble_get_what_they_would_alone():
    """Both nets have a layer called stem_bn; a path selects one."""
    x = images(24)
    alone = [resnet8((8, 8, 1), "bn_fc8", 5, seed=i) for i in (0, 1)]
    for net in alone:
        recompute_batch_stats(net, x)
    members = [resnet8((8, 8, 1), "bn_fc8", 5, seed=i) for i in (0, 1)]
    for i, net in enumerate(members):
        net.name = f"member{i}"
    inputs = keras.Input((8, 8, 1))
    ensemble = keras.Model(inputs, layers.Average()([net(inputs) for net in members]))
    names = recompute_batch_stats(ensemble, x)
    assert names[0] in ("member0/stem_bn", "member1/stem_bn") and len(names) == 2 * len(
        alone[0].layers
    ) - len([layer for net in alone for layer in net.layers if not hasattr(layer, "moving_mean")])
    for net, expected in zip(members, alone, strict=True):
        for actual, expected_value in zip(net.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(actual, expected_value, rtol=1e-5, atol=1e-6)
    assert set(recompute_batch_stats(ensemble, x, "head")) == {"member0/head_bn", "member1/head_bn"}
    assert recompute_batch_stats(ensemble, x, "member1/head_bn") == ["member1/head_bn"]
    with pytest.raises(UsageError, match="has no batch norm 'head_bn'"):
        recompute_batch_stats(ensemble, x, ["head_bn"])


def test_empty_batches_are_passed_over():
    model, x = resnet8((8, 8, 1), "bn_out", 5, seed=0), images(10)
    sizes = tf.data.Dataset.from_generator(
        lambda: iter([x[:0], x]), output_signature=tf.TensorSpec((None, 8, 8, 1), tf.float32)
    )
    recompute_batch_stats(model, sizes, "head")
    np.testing.assert_allclose(
        moving(model, "head_bn")[0], reads(model, "head_bn", x).mean(0), rtol=1e-3, atol=1e-5
    )
