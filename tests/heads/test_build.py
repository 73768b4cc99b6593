import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.heads.build import LAYERS
from bnhead.layers.normalization import EPSILON, MOMENTUM
from bnhead.training.config import TrainConfig
from tests.heads.test_grammar import SAME_HEAD


def features(*shape):
    return keras.Input(shape or (4, 4, 8))


def build(text, seed=0, shape=(4, 4, 8), outputs=3, **options):
    inputs = features(*shape)
    options = {"class_counts": [6, 3, 2], **options}
    return heads.attach(text, inputs, inputs, outputs, name="model", seed=seed, **options)


def head_layers(model):
    return [layer for layer in model.layers if layer.name.startswith("head_")]


EVERY_TOKEN = [token.example for token in heads.TOKENS.values()]
PARTS = [f"{token.example}-{part}" for token in heads.TOKENS.values() for part in token.parts]
EVERY_HEAD = [*EVERY_TOKEN, *PARTS, *heads.PRESETS]


def test_every_token_has_its_layer():
    assert list(LAYERS) == list(heads.TOKENS)


def test_a_parsed_head_is_as_good_as_its_text():
    inputs = features()
    by_method = heads.parse("bn_fc").apply(inputs, 3, fc_units=5, seed=1)
    by_text = heads.apply("bn_fc", inputs, 3, fc_units=5, seed=1)
    models = [keras.Model(inputs, logits) for logits in (by_method, by_text)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("text", "canonical"), SAME_HEAD)
def test_canonical_text_builds_the_same_model(text, canonical):
    configs = [[layer.get_config() for layer in head_layers(build(t))] for t in (text, canonical)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("text", EVERY_HEAD)
def test_parameters_are_those_of_the_built_head(text):
    model = build(text, fc_units=16)
    assert heads.parse(text).parameters((4, 4, 8), 3, fc_units=16) == model.count_params()


@pytest.mark.parametrize("text", [*EVERY_TOKEN, *heads.PRESETS])
@pytest.mark.parametrize("outputs", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_every_head_trains_and_saves(text, outputs, tmp_path):
    """Classification, regression and a multi-label output: the same logits under three losses."""
    model = build(text, outputs=outputs, fc_units=8)
    x = np.random.default_rng(0).normal(size=(6, 4, 4, 8)).astype("float32")
    labels = np.array([0, 1, 2, 0, 1, 2]) % outputs
    numbers = np.random.default_rng(1).uniform(size=(6, outputs)).astype("float32")
    losses = [
        (keras.losses.MeanSquaredError(), numbers),
        (keras.losses.BinaryCrossentropy(from_logits=True), np.round(numbers)),
    ]
    if outputs > 1:
        losses.append((keras.losses.SparseCategoricalCrossentropy(from_logits=True), labels))
    inputs = [x, labels.astype("int32")] if heads.parse(text).needs_labels else x
    for loss, target in losses:
        model.compile("sgd", loss, jit_compile=False)
        assert np.isfinite(model.train_on_batch(inputs, target))
    predicting = heads.inference(model)
    expected = np.asarray(predicting(x))
    assert expected.shape == (6, outputs) and expected.dtype == "float32"
    predicting.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), expected)


@pytest.mark.parametrize("text", ["gap_out", "gmp_out", "catpool_out", "gem_out", "flatten_out"])
def test_described_width_is_the_built_width(text):
    width = int(heads.describe(text, (4, 4, 8), 3).split(" -> ")[2])
    assert build(text).get_layer("head_out").input.shape == (None, width)


def test_pooling_against_numpy():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype("float32")
    inputs = features()

    def pooled(text):
        model = keras.Model(inputs, heads.apply(f"{text}_out", inputs, 1))
        return keras.Model(inputs, model.get_layer(f"head_{text}").output)(x)

    mean, largest = x.mean((1, 2)), x.max((1, 2))
    np.testing.assert_allclose(pooled("gap"), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled("gmp"), largest)
    np.testing.assert_allclose(pooled("catpool"), np.concatenate([largest, mean], 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled("flatten"), x.reshape(2, -1))


def test_layers_have_the_settings_of_their_tokens():
    model = build("bn_dropout0.25_fc_dense6_fc4", fc_units=16, fc_activation="elu", outputs=7)
    assert [layer.name for layer in model.layers[1:]] == [
        "head_gap", "head_bn", "head_dropout", "head_fc", "head_dense", "head_fc_2", "head_out",
    ]  # fmt: skip
    assert isinstance(model.get_layer("head_bn"), keras.layers.BatchNormalization)
    assert model.get_layer("head_bn").momentum == 0.9
    assert model.get_layer("head_dropout").rate == 0.25
    assert model.get_layer("head_fc").units == 16
    assert model.get_layer("head_fc").activation is keras.activations.elu
    assert model.get_layer("head_dense").units == 6
    assert model.get_layer("head_dense").activation is keras.activations.linear
    assert model.get_layer("head_fc_2").units == 4
    assert model.output.shape == (None, 7)
    assert model.get_layer("head_out").activation is keras.activations.linear


def test_norms_have_the_constants_of_the_backbones():
    for token in (
        *("bn", "gbn16", "brn", "fbn", "center", "scale", "fcenter", "fscale", "noise"),
        *("ln", "rms", "gn4"),
    ):
        (layer,) = [
            layer for layer in head_layers(build(token)) if layer.name not in ("head_gap", "head_out")
        ]
        assert layer.epsilon == 1e-5
        assert getattr(layer, "momentum", 0.9) == 0.9


def test_epsilon_and_momentum_of_the_batch_norms_can_be_set():
    for token in ("bn", "gbn16", "brn", "fbn", "scale", "fcenter", "noise"):
        model = build(f"{token}_ln_fc", head_bn_epsilon=1e-2, head_bn_momentum=0.6)
        norm = model.get_layer(f"head_{token.rstrip('16')}")
        assert (norm.epsilon, norm.momentum, model.get_layer("head_ln").epsilon) == (1e-2, 0.6, 1e-5)
    assert (TrainConfig.head_bn_epsilon, TrainConfig.head_bn_momentum) == (EPSILON, MOMENTUM)


def test_renorm_steps_and_class_counts_reach_their_layers():
    assert build("brn", renorm_steps=77).get_layer("head_brn").steps == 77
    layer = build("cdropout0.5").get_layer("head_cdropout")
    assert (layer.rate, layer.class_counts) == (0.5, [6, 3, 2])


def test_groups_must_divide_the_features():
    with pytest.raises(heads.HeadError, match="'gn3': groups must divide the 8 features it reads, got 3"):
        build("gn3")


def test_class_conditional_dropout_needs_labels_and_counts():
    inputs = features()
    with pytest.raises(heads.HeadError, match=r"'cdropout0\.5_out': labels must be a Keras tensor"):
        heads.apply("cdropout0.5", inputs, 3, class_counts=[1, 2, 3])
    with pytest.raises(heads.HeadError, match="class_counts must be the training examples"):
        build("cdropout0.5", class_counts=None)


def test_initial_weights_do_not_depend_on_other_layers():
    short, long = build("fc", seed=3), build("bn_dropout0.5_fc_bn", seed=3)
    for name in ("head_fc", "head_out"):
        np.testing.assert_array_equal(short.get_layer(name).kernel, long.get_layer(name).kernel)
    assert not np.array_equal(
        short.get_layer("head_fc").kernel, build("fc", seed=4).get_layer("head_fc").kernel
    )
    twins = build("dense6_dense6_dense6", seed=3)
    second, third = (twins.get_layer(f"head_dense_{i}").kernel for i in (2, 3))
    assert not np.array_equal(second, third), "every layer has a separate stream"
    unseeded = build("fc", seed=None), build("fc", seed=None)
    assert not np.array_equal(*(model.get_layer("head_fc").kernel for model in unseeded))


def test_a_net_that_ends_in_a_vector_needs_no_pooling():
    model = build("bn_fc", shape=(12,))
    assert [layer.name for layer in model.layers[1:]] == ["head_bn", "head_fc", "head_out"]
    with pytest.raises(heads.HeadError, match=">>gap<<_fc': 'gap' has nothing to pool"):
        build("gap_fc", shape=(12,))
    with pytest.raises(heads.HeadError, match="rank 2 or 4"):
        build("fc", shape=(5, 6))


def test_logits_are_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for text in ("fc", "bn_out", *(f"fc_out_{norm}" for norm in ("bn", "gbn4", "brn", "fbn", "center"))):
            assert build(text).output.dtype == "float32"
        assert build("fc").get_layer("head_fc").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(policy)


def test_channels_first_is_refused():
    inputs = features()
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(UsageError, match="channels_last"):
            heads.apply("fc", inputs, 3)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("outputs", [None, 0, True, 2.0])
def test_outputs_must_be_a_number_of_outputs(outputs):
    with pytest.raises(UsageError, match=f"outputs must be .* at least 1 for head 'fc', got {outputs}$"):
        heads.apply("fc", features(), outputs)
    assert heads.apply("fc", features(), np.int64(3)).shape == (None, 3)


def test_attach_needs_head_and_outputs_together():
    inputs = features()
    assert heads.attach(None, inputs, inputs, None, name="bare").output.shape == (None, 4, 4, 8)
    with pytest.raises(UsageError, match="outputs needs a head"):
        heads.attach(None, inputs, inputs, 10, name="bare")
    with pytest.raises(UsageError, match="fc_units needs a head"):
        heads.attach(None, inputs, inputs, None, name="bare", fc_units=3)
    with pytest.raises(
        UsageError, match="outputs must be a whole number of at least 1 for head 'fc', got None"
    ):
        heads.attach("fc", inputs, inputs, None, name="bare")
