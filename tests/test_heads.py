import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.errors import UsageError

SAME_HEAD = [  # text, canonical text
    ("fc", "fc"),
    ("gap_fc_out", "fc"),
    ("out", "out"),
    ("gap", "out"),
    ("bn", "bn_out"),
    ("gap_bn_out", "bn_out"),
    ("bn_fc", "bn_fc"),
    ("gap_bn_fc", "bn_fc"),
    ("bn_gap_fc_out", "bn_gap_fc"),
    ("fc_out_bn", "fc_out_bn"),
    ("gmp_dense64", "gmp_dense64"),
    ("catpool_bn_dropout.250_fc512_bn_dropout0.5_out", "catpool_bn_dropout0.25_fc512_bn_dropout0.5"),
    ("flatten_fc_fc", "flatten_fc_fc"),
    ("dropout0.00001_out", "dropout0.00001_out"),
    ("dropout0.123456789012_out", "dropout0.123456789012_out"),
]

INVALID = [  # text, what the message must contain
    ("", "'bn_fc'"),
    ("bn__fc", "bn_>><<_fc"),
    ("bn_fc_", "bn_fc_>><<"),
    ("bn_fx", "bn_>>fx<<': 'fx' is no token; did you mean 'fc'?"),
    ("dropuot0.5", "did you mean 'dropout'?"),
    ("BN_fc", ">>BN<<_fc': 'BN' is no token; did you mean 'bn'?"),
    ("fc 256", ">>fc 256<<"),
    ("fc-1", ">>fc-1<<"),
    ("fc0", "needs units of at least 1, a whole number, as in 'fc256'"),
    ("fc2.5", "needs units of at least 1"),
    ("bn8", "takes no number; write 'bn'"),
    ("out10", "takes no number; write 'out'"),
    ("fc_dropout", "needs its rate, as in 'dropout0.5'"),
    ("dropout0", "needs a rate between 0 and 1"),
    ("dropout1", "needs a rate between 0 and 1"),
    ("fc_gap", ">>fc<<_gap': 'fc' needs a vector, so it stands after the pooling 'gap'"),
    ("out_gap", ">>out<<_gap"),
    ("gap_gmp", "gap_>>gmp<<': 'gmp' is a second pooling"),
    ("fc_out_out", "is a second output layer"),
    ("out_fc", "out_>>fc<<': 'fc' stands after the output layer"),
    ("out_dropout0.5", "stands after the output layer"),
]


def features(*shape):
    return keras.Input(shape or (4, 4, 8))


def build(text, seed=0, shape=(4, 4, 8), outputs=3, **options):
    inputs = features(*shape)
    return keras.Model(inputs, heads.apply(text, inputs, outputs, seed=seed, **options))


@pytest.mark.parametrize(("text", "canonical"), SAME_HEAD)
def test_canonical_text_is_a_fixed_point_and_builds_the_same_model(text, canonical):
    assert heads.canonical(text) == canonical
    assert heads.canonical(canonical) == canonical
    one, other = build(text), build(canonical)
    assert [layer.name for layer in one.layers[1:]] == [layer.name for layer in other.layers[1:]]
    assert [layer.get_config() for layer in one.layers[1:]] == [
        layer.get_config() for layer in other.layers[1:]
    ]


@pytest.mark.parametrize(("text", "expected"), INVALID)
def test_invalid_text_marks_the_token_and_names_what_there_is(text, expected):
    with pytest.raises(heads.HeadError) as caught:
        heads.canonical(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    if text:
        assert all(
            f" {name}" in str(caught.value) or f"({name}" in str(caught.value) for name in ["bn", "fc", "out"]
        )


@pytest.mark.parametrize("value", [None, 3, ["fc"]])
def test_a_head_is_a_text(value):
    with pytest.raises(heads.HeadError, match="tokens joined by '_'"):
        heads.parse(value)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("fc", ()),
        ("bn_gap_fc", ("P0",)),
        ("bn_fc", ("P1",)),
        ("bn_out", ("P1",)),
        ("fc_bn", ("P2",)),
        ("dense_bn", ("P2",)),
        ("fc_out_bn", ("P3",)),
        ("bn_gap_bn_fc_bn_out_bn", ("P0", "P1", "P2", "P3")),
    ],
)
def test_placement(text, places):
    assert heads.placement(text) == places


def test_describe_writes_shapes_options_and_placement():
    described = heads.describe(
        "catpool_bn_dropout0.25_fc", (8, 8, 64), 10, fc_units=512, fc_activation="gelu"
    )
    assert described == "8x8x64 -> catpool -> 128 -> bn -> dropout(0.25) -> fc(512, gelu) -> out(10)  [P1]"
    assert heads.describe("flatten_dense16_fc8", (2, 3, 4), 5) == (
        "2x3x4 -> flatten -> 24 -> dense(16) -> fc(8, relu) -> out(5)"
    )
    assert heads.describe("bn_fc", (512,), 10) == "512 -> bn -> fc(256, relu) -> out(10)  [P1]"
    assert heads.describe("fc") == "features -> gap -> fc(256, relu) -> out(?)"


@pytest.mark.parametrize("text", ["gap_out", "gmp_out", "catpool_out", "flatten_out"])
def test_described_width_is_the_width_that_is_built(text):
    width = int(heads.describe(text, (4, 4, 8), 3).split(" -> ")[2])
    assert build(text).get_layer("head_out").input.shape == (None, width)


def test_pooling_against_numpy():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype("float32")
    inputs = features()

    def pooled(text):
        model = keras.Model(inputs, heads.apply(f"{text}_out", inputs, 1))
        return keras.Model(inputs, model.get_layer(f"head_{text}").output).predict(x, verbose=0)

    mean, largest = x.mean((1, 2)), x.max((1, 2))
    np.testing.assert_allclose(pooled("gap"), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled("gmp"), largest)
    np.testing.assert_allclose(pooled("catpool"), np.concatenate([largest, mean], 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled("flatten"), x.reshape(2, -1))


def test_layers_are_what_their_tokens_say():
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


def test_a_longer_head_leaves_everybody_elses_initial_weights_alone():
    short, long = build("fc", seed=3), build("bn_dropout0.5_fc_bn", seed=3)
    for name in ("head_fc", "head_out"):
        np.testing.assert_array_equal(short.get_layer(name).kernel, long.get_layer(name).kernel)
    assert not np.array_equal(
        short.get_layer("head_fc").kernel, build("fc", seed=4).get_layer("head_fc").kernel
    )
    twins = build("dense6_dense6_dense6", seed=3)
    second, third = (twins.get_layer(f"head_dense_{i}").kernel for i in (2, 3))
    assert not np.array_equal(second, third), "every layer has a stream of its own"
    unseeded = build("fc", seed=None), build("fc", seed=None)
    assert not np.array_equal(*(model.get_layer("head_fc").kernel for model in unseeded))


def test_a_net_that_ends_in_a_vector_needs_no_pooling():
    model = build("bn_fc", shape=(12,))
    assert [layer.name for layer in model.layers[1:]] == ["head_bn", "head_fc", "head_out"]
    with pytest.raises(heads.HeadError, match=">>gap<<_fc': 'gap' has nothing to pool"):
        build("gap_fc", shape=(12,))
    with pytest.raises(heads.HeadError, match="rank 2 or 4"):
        build("fc", shape=(5, 6))


def test_large_units_keep_all_their_digits():
    for text in ("fc1000000", "fc1234567"):
        assert heads.canonical(text) == text
        assert f"fc({text[2:]}, relu)" in heads.describe(text)


def test_logits_are_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for text in ("fc", "bn_out", "fc_out_bn"):
            assert build(text).output.dtype == "float32"
        assert build("fc").get_layer("head_fc").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)


def test_unknown_sizes_are_question_marks():
    assert heads.describe("flatten_fc", (None, None, 64), 10).startswith("?x?x64 -> flatten -> ? -> fc")


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


def test_attach_wants_head_and_outputs_together():
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


def test_feature_shape():
    assert heads.feature_shape(build("bn_fc")) == (4, 4, 8)
    with pytest.raises(ValueError, match="no layer called head_"):
        heads.feature_shape(keras.Sequential([features(), keras.layers.Flatten()]))


def test_every_token_is_documented():
    table = heads.__doc__.split("number\n")[1].split("\n\n")[0]
    documented = {word for line in table.splitlines() for word in line[:33].split()}
    assert documented == set(heads.KINDS)
