import keras
import numpy as np
import pytest
from keras import layers

from bnhead import models
from bnhead.layers import fold_batch_norm
from bnhead.layers.folding import foldable_norms, inference_affine


def shaken(model):
    """The model with random norms, as after training."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return model


def norms(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


@pytest.mark.parametrize(
    ("name", "unfolded_norms"),
    [  # the norms before an activation that do not follow a convolution
        ("resnet20", set()),
        ("plain20", set()),
        ("vgg16_bn", set()),
        pytest.param("resnet18", set(), marks=pytest.mark.slow),
        pytest.param("resnet50_v1", set(), marks=pytest.mark.slow),
        ("wrn10_1", {"stage1_block1_bn1", "stage2_block1_bn1", "stage3_block1_bn1", "final_bn"}),
        pytest.param("keras:MobileNetV2", set(), marks=pytest.mark.slow),
    ],
)
def test_outputs_stay_and_norms_go(name, unfolded_norms):
    model = shaken(models.build(name, (32, 32, 3), "bn_fc8", 5, seed=0))
    folded = fold_batch_norm(model)
    x = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        folded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    unfolded = set(norms(folded))
    if name == "keras:MobileNetV2":  # its depthwise convolutions keep theirs
        assert unfolded == {n for n in norms(model) if "depthwise" in n}
    else:
        assert unfolded == unfolded_norms


def test_a_norm_on_the_logits_folds_into_the_output_layer():
    model = shaken(models.resnet8((8, 8, 1), "fc8_out_bn", 5, seed=0))
    folded = fold_batch_norm(model)
    assert "head_out_bn" not in norms(folded) and "head_bn" not in norms(folded)
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_what_is_read_twice_or_activated_before_its_norm_is_left_alone():
    inputs = keras.Input((6, 6, 2))
    shared = layers.Conv2D(3, 3, name="shared")(inputs)
    active = layers.Conv2D(3, 3, activation="relu", name="active")(inputs)
    outputs = layers.Add()([layers.BatchNormalization(name="a")(shared), shared])
    outputs = layers.Add()([outputs, layers.BatchNormalization(name="b")(active)])
    model = shaken(keras.Model(inputs, outputs))
    folded = fold_batch_norm(model)
    assert norms(folded) == ["a", "b"]
    x = np.random.default_rng(1).normal(size=(4, 6, 6, 2)).astype("float32")
    np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_a_bias_and_a_norm_without_scale_fold():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, bias_initializer="uniform")(inputs)
    model = shaken(keras.Model(inputs, layers.BatchNormalization(scale=False)(x)))
    folded = fold_batch_norm(model)
    assert not norms(folded)
    x = np.random.default_rng(1).normal(size=(4, 6, 6, 2)).astype("float32")
    np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_the_model_is_left_as_it_is_and_the_copy_saves(tmp_path):
    model = shaken(models.resnet8((8, 8, 1), "bn_fc8", 5, seed=0))
    weights = model.get_weights()
    folded = fold_batch_norm(model)
    for actual, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
    folded.save(tmp_path / "model.keras")
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype("float32")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), folded.predict(x, verbose=0))


@pytest.mark.parametrize(
    "between", [None, layers.Dropout(0.5), layers.GlobalAveragePooling2D(), layers.Flatten()]
)
def test_a_norm_folds_forward_into_a_dense(between):
    inputs = keras.Input((3, 2, 4))
    x = layers.BatchNormalization(name="norm")(layers.ReLU()(inputs))
    x = x if between is None else type(between).from_config(between.get_config())(x)
    model = shaken(keras.Model(inputs, layers.Dense(5, "relu", use_bias=False, name="dense")(x)))
    folded = fold_batch_norm(model)
    assert not norms(folded)
    x = np.random.default_rng(1).normal(size=(6, 3, 2, 4)).astype("float32")
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_norms_in_a_row_and_on_both_sides_fold():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.BatchNormalization()(inputs))
    model = shaken(keras.Model(inputs, layers.BatchNormalization()(layers.Dense(5)(x))))
    folded = fold_batch_norm(model)
    assert [type(layer) for layer in folded.layers[1:]] == [layers.Dense]
    x = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_what_stands_before_max_pooling_or_a_second_reader_stays():
    inputs = keras.Input((3, 2, 4))
    x = layers.BatchNormalization(name="before_max")(layers.ReLU()(inputs))
    x = layers.BatchNormalization(name="read_twice")(layers.GlobalMaxPooling2D()(x))
    model = shaken(keras.Model(inputs, layers.Add()([layers.Dense(5)(x), layers.Dense(5)(x)])))
    assert norms(fold_batch_norm(model)) == ["before_max", "read_twice"]


def test_only_those_that_are_named():
    model = shaken(models.resnet8((8, 8, 1), "bn_fc8_bn", 5, seed=0))
    assert norms(fold_batch_norm(model, ["head_bn"])) == [n for n in norms(model) if n != "head_bn"]


def test_affine_of_other_layers_is_none():
    layer = layers.LayerNormalization()
    layer.build((None, 4))
    assert inference_affine(layer) is None
    norm = layers.BatchNormalization(axis=1)
    norm.build((None, 4, 5))
    assert inference_affine(norm) is None


def test_subclasses_and_norms_that_always_train_are_left_alone():
    class Cosine(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) * 0.5

    inputs = keras.Input((4,))
    x = layers.BatchNormalization(name="before_cosine")(inputs)
    x = layers.BatchNormalization(name="trains")(Cosine(4)(x), training=True)
    model = shaken(keras.Model(inputs, layers.Dense(2)(x)))
    assert not foldable_norms(model)


class StaysOn(layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


@pytest.mark.parametrize(
    "between",
    [
        [layers.GlobalAveragePooling2D(), StaysOn(0.5)],
        [layers.GlobalAveragePooling2D(data_format="channels_first")],
        [layers.Flatten(data_format="channels_first")],
    ],
)
def test_norms_before_what_only_looks_like_the_identity_stay(between):
    """A dropout that is on in inference, and layers whose channels are on another axis."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(6, 1, activation="relu"),
            layers.BatchNormalization(name="norm"),
        ]
    )
    for layer in (*between, layers.Dense(4)):
        model.add(layer)
    rng = np.random.default_rng(0)
    model.get_layer("norm").set_weights([rng.uniform(0.5, 2, 6) for _ in range(4)])
    folded = fold_batch_norm(model)
    assert "norm" in [layer.name for layer in folded.layers]
    if not isinstance(between[-1], StaysOn):
        x = rng.normal(size=(5, 4, 4, 3)).astype("float32")
        np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)


def test_a_norm_before_a_layer_with_lora_stays():
    model = keras.Sequential([keras.Input((8,)), layers.BatchNormalization(name="norm"), layers.Dense(4)])
    model.layers[1].enable_lora(2)
    shaken(model)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    folded = fold_batch_norm(model)
    assert "norm" in [layer.name for layer in folded.layers]
    np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
