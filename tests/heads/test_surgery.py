import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.graph import model_calls
from bnhead.layers import fold_batch_norm, plain, recompute_batch_stats
from bnhead.models import resnet8, resnet20
from bnhead.models.existing import from_applications
from tests.heads.test_build import PARTS, build, head_layers
from tests.heads.test_grammar import SAME_HEAD


def mostly_slow(*first):
    """All presets, with those that are not in `first` marked slow."""
    slow = pytest.mark.slow
    return [name if name in first else pytest.param(name, marks=slow) for name in heads.PRESETS]


NORMS = ("bn", "gbn4", "brn", "fbn", "center", "scale", "fcenter", "fscale")


def shaken(model, seed=0):
    """The model with random weights, norms among them, as after training."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype == "float32":
            spread = rng.uniform(0.8, 1.2, weight.shape)
            positive = weight.path.endswith(("gamma", "moving_variance"))
            weight.assign(
                spread if positive else np.asarray(weight) * spread + rng.normal(0, 0.01, spread.shape)
            )
    return model


def images(count=16, channels=1, size=16):
    return np.random.default_rng(1).normal(size=(count, size, size, channels)).astype("float32")


def norms(model):
    return [layer.name for layer in model.layers if hasattr(layer, "moving_variance")]


@pytest.fixture(scope="module")
def resnet():
    return shaken(resnet20((16, 16, 1), "fc", 5, seed=0))


@pytest.fixture(scope="module")
def mobilenet():
    net = keras.applications.MobileNetV2(input_shape=(32, 32, 3), weights=None, classes=7)
    return shaken(net)


@pytest.mark.parametrize("head", [*heads.PRESETS, *(f"{norm}_fc8" for norm in NORMS), "fc8_bn", "bn_bn_out"])
def test_fold_and_swap_on_resnet20(head, resnet):
    swapped = shaken(heads.swap(resnet, head, seed=1), seed=2)
    assert heads.canonical(heads.read(swapped)).replace("256", "") == heads.canonical(head).replace("256", "")
    folded, difference = heads.fold(swapped, images())
    assert difference <= 1e-5
    assert not [name for name in norms(folded) if name.startswith("head_")]
    assert len(norms(folded)) == 19, "the backbone's norms stay"


@pytest.mark.parametrize("head", mostly_slow("bnneck"))
def test_fold_and_swap_on_a_net_of_keras_applications(head, mobilenet):
    swapped = shaken(heads.swap(mobilenet, head, seed=1), seed=2)
    assert swapped.output.shape == (None, 7)
    folded, difference = heads.fold(swapped, images(8, 3, 32))
    assert difference <= 1e-5
    assert not [name for name in norms(folded) if name.startswith("head_")]


@pytest.mark.parametrize("net", ["resnet", pytest.param("mobilenet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", mostly_slow("arcface", "plain"))
def test_insert_and_fold_on_every_preset(head, net, request):
    """A norm inserted before the first Dense changes nothing, and folding removes it."""
    x = images() if net == "resnet" else images(16, 3, 32)
    model = shaken(heads.swap(request.getfixturevalue(net), head, seed=1), seed=2)
    inserted = heads.insert_bn(model, x)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(inserted(x), expected, atol=1e-5 * max(1, np.abs(expected).max()))
    assert len(norms(inserted)) == len(norms(model)) + 1
    folded, difference = heads.fold(inserted, x)
    assert difference <= 1e-5 and not [name for name in norms(folded) if name.startswith("head_")]


def test_the_reported_difference_is_the_largest_relative_one():
    model = shaken(resnet8((16, 16, 1), "bn_out", 5, seed=0))
    folded, difference = heads.fold(model, images())
    expected, outputs = (np.asarray(m(images()), "float64") for m in (model, folded))
    assert difference == np.abs(expected - outputs).max() / max(1, np.abs(expected).max()) > 0
    assert heads.fold(model).difference <= 1e-5, "without data: standard normal inputs"


def test_fold_by_hand():
    inputs = keras.Input((3,))
    model = shaken(keras.Model(inputs, heads.apply("bn_dropout0.5_dense4_out_bn", inputs, 2, seed=0)))
    first, dense, out, last = (model.get_layer(f"head_{n}") for n in ("bn", "dense", "out", "bn_2"))
    folded = heads.fold(model).model
    assert [layer.name for layer in folded.layers[1:]] == ["head_dropout", "head_dense", "head_out"]
    s = first.gamma / np.sqrt(first.moving_variance + 1e-5)
    t = first.beta - s * first.moving_mean
    np.testing.assert_allclose(folded.get_layer("head_dense").kernel, np.diag(s) @ dense.kernel, rtol=1e-5)
    np.testing.assert_allclose(
        folded.get_layer("head_dense").bias, dense.bias + np.asarray(t) @ dense.kernel, rtol=1e-4, atol=1e-6
    )
    s = last.gamma / np.sqrt(last.moving_variance + 1e-5)
    np.testing.assert_allclose(folded.get_layer("head_out").kernel, np.asarray(out.kernel) * s, rtol=1e-5)


@pytest.mark.parametrize("before", [None, "head_out", "head_gap"])
def test_an_inserted_norm_changes_nothing_at_step_0(before, resnet):
    inserted = heads.insert_bn(resnet, images(50), before)
    expected_text = {None: "bn_fc256", "head_out": "fc256_bn", "head_gap": "bn_gap_fc256"}[before]
    assert heads.read(inserted) == expected_text
    expected = np.asarray(resnet(images()))
    np.testing.assert_allclose(inserted(images()), expected, atol=1e-5 * np.abs(expected).max())
    norm = inserted.get_layer("head_bn")
    np.testing.assert_allclose(norm.gamma, np.sqrt(norm.moving_variance + norm.epsilon), rtol=1e-6)
    np.testing.assert_array_equal(norm.beta, norm.moving_mean)
    reads = keras.Model(resnet.input, resnet.get_layer(before or "head_fc").input)(images(50))
    axes = tuple(range(len(reads.shape) - 1))
    np.testing.assert_allclose(norm.moving_mean, np.mean(reads, axes), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, np.var(reads, axes), rtol=1e-4, atol=1e-7)
    in_training = np.asarray(inserted(images(50), training=True))
    assert np.abs(in_training - np.asarray(resnet(images(50)))).max() > 1e-4, "in training it is a batch norm"


@pytest.mark.slow
def test_insert_and_fold_on_a_net_of_keras_applications(mobilenet):
    x = images(20, 3, 32)
    inserted = heads.insert_bn(mobilenet, x)
    assert [layer.name for layer in inserted.layers][-2:] == ["head_bn", "predictions"]
    expected = np.asarray(mobilenet(x))
    np.testing.assert_allclose(inserted(x), expected, atol=1e-5)
    folded, difference = heads.fold(inserted, x)
    assert difference <= 1e-5 and "head_bn" not in norms(folded)
    np.testing.assert_allclose(
        folded.get_layer("predictions").kernel,
        mobilenet.get_layer("predictions").kernel,
        rtol=1e-4,
        atol=1e-6,
    )


def test_insert_before_an_unknown_layer(resnet):
    with pytest.raises(UsageError, match="'head_fx' is not in model 'resnet20'; did you mean 'head_fc'"):
        heads.insert_bn(resnet, images(), "head_fx")
    bare = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 1), layers.GlobalAveragePooling2D()])
    with pytest.raises(UsageError, match="no Dense after its features"):
        heads.insert_bn(bare, images(4, 2, 4))


def test_swap_keeps_backbone_and_agreeing_weights(resnet):
    weights = resnet.get_weights()
    swapped = heads.swap(resnet, "bn_fc", seed=9)
    for layer in swapped.layers:
        if layer.name != "head_bn":
            for weight, old in zip(layer.weights, resnet.get_layer(layer.name).weights, strict=True):
                np.testing.assert_array_equal(weight, old)
    narrow = heads.swap(resnet, "fc8", outputs=3, seed=9)
    assert narrow.output.shape == (None, 3)
    fresh = resnet20((16, 16, 1), "fc8", 3, seed=9)
    for name in ("head_fc", "head_out"):
        np.testing.assert_array_equal(narrow.get_layer(name).kernel, fresh.get_layer(name).kernel)
    np.testing.assert_array_equal(narrow.get_layer("stem_conv").kernel, resnet.get_layer("stem_conv").kernel)
    swapped.get_layer("stem_conv").kernel.assign_add(np.ones_like(swapped.get_layer("stem_conv").kernel))
    for weight, expected in zip(resnet.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_the_same_head_swapped_in_changes_nothing(resnet):
    np.testing.assert_array_equal(heads.swap(resnet, "fc")(images()), resnet(images()))


def test_layers_after_the_head_stay():
    model = resnet8((8, 8, 1), "bn_fc8", 2, seed=0)
    scaled = keras.Model(model.input, layers.Rescaling(3.0, offset=1.0, name="to_units")(model.output))
    x = images(4, 1, 8)
    np.testing.assert_array_equal(heads.swap(scaled, "bn_fc8")(x), scaled(x))
    assert heads.swap(scaled, "fc8").layers[-1].name == "to_units"
    assert heads.fold(scaled, x).difference <= 1e-5


def test_heads_with_labels_can_be_swapped_in_and_out(resnet):
    labelled = heads.swap(resnet, "cdropout0.5_fc", class_counts=[5, 4, 3, 2, 1])
    assert [tensor.name for tensor in labelled.inputs][1] == "label"
    np.testing.assert_array_equal(heads.inference(labelled)(images()), resnet(images()))
    np.testing.assert_array_equal(heads.swap(labelled, "fc")(images()), resnet(images()))


def test_a_net_with_our_head_on_a_keras_backbone():
    model = shaken(from_applications("MobileNetV2", (32, 32, 3), "bn_fc8", 4, seed=0))
    swapped = heads.swap(model, "fc8_bn", seed=0)
    assert heads.read(swapped) == "fc8_bn"
    np.testing.assert_array_equal(
        keras.Model(swapped.input, swapped.get_layer("head_gap").output)(images(4, 3, 32)),
        keras.Model(model.input, model.get_layer("head_gap").output)(images(4, 3, 32)),
    )


def chain(*stack, shape=(16, 16, 3)):
    inputs = x = keras.Input(shape)
    tensors = [x := layer(x) for layer in stack]
    return keras.Model(inputs, x), tensors


def conv(channels=6, **options):
    return layers.Conv2D(channels, 3, strides=4, **options)


@pytest.mark.parametrize(
    ("stack", "position"),
    [
        ((conv(), layers.ReLU()), 1),
        ((conv(), layers.ReLU(), layers.GlobalAveragePooling2D()), 1),
        (
            (
                conv(),
                layers.GlobalMaxPooling2D(),
                layers.Dense(9, "relu"),
                layers.Dropout(0.1),
                layers.Dense(3),
            ),
            0,
        ),
        ((conv(), layers.Flatten(), layers.Dense(3), layers.Softmax()), 0),
        ((conv(), layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(3, 1), layers.Flatten()), 0),
        ((conv(), layers.GlobalAveragePooling2D(keepdims=True)), 0),
        ((conv(), lambda x: ops.mean(x, (1, 2)), layers.Dense(3)), 0),
        ((conv(), conv(), layers.Flatten(), layers.Dense(3)), 1),  # a map of 1 x 1 that no pooling made
        # tokens, and pixels without any convolution: the vector before the classifier
        (
            (
                conv(),
                layers.Reshape((16, 6)),
                layers.GlobalAveragePooling1D(),
                layers.Dense(7),
                layers.Dense(3),
            ),
            3,
        ),
        ((layers.Flatten(), layers.Dense(7, "relu"), layers.Dense(3, "softmax")), 1),
        ((layers.Flatten(), layers.Dense(7), layers.Dropout(0.5)), 0),
    ],
)
def test_feature_map(stack, position):
    model, tensors = chain(*stack)
    assert heads.feature_map(model) is tensors[position]


def test_a_net_with_two_outputs_is_refused():
    inputs = keras.Input((4, 4, 3))
    with pytest.raises(UsageError, match="must have one input and one output"):
        heads.feature_map(keras.Model(inputs, [inputs, inputs + 1]))


def test_feature_map_with_a_classifier_that_another_model_uses_too():
    classifier = layers.Dense(3)
    classifier(keras.Input((5,)))
    inputs = keras.Input((7,))
    vector = layers.Dense(5)(inputs)
    assert heads.feature_map(keras.Model(inputs, classifier(vector))) is vector


def nested():
    """A classifier whose backbone is a nested model with its own pooling and norm."""
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, strides=2, name="inner_conv"),
            layers.BatchNormalization(name="inner_bn"),
            layers.ReLU(name="inner_relu"),
            layers.GlobalAveragePooling2D(name="inner_gap"),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    return shaken(
        keras.Model(inputs, layers.Dense(4, name="classifier")(inner(layers.Rescaling(0.5)(inputs))))
    )


@pytest.mark.parametrize("build", [nested, lambda: keras.Sequential(nested().layers)])
def test_nested_and_sequential_models_keep_their_backbone(build):
    model, x = build(), images(8, 3, 8)
    swapped = heads.swap(model, "bn_out", seed=0)
    assert "inner_conv" in [layer.name for layer in swapped.layers]
    np.testing.assert_array_equal(
        swapped.get_layer("inner_conv").kernel, model.get_layer("inner").get_layer("inner_conv").kernel
    )
    assert heads.fold(swapped, x).difference <= 1e-5
    inserted = heads.insert_bn(model, x)
    np.testing.assert_allclose(inserted(x), model(x), atol=1e-5)


def test_a_backbones_own_layers_called_head_are_the_backbones():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, name="head_conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, name="head_proj")(x))
    swapped = heads.swap(model, "bn_out")
    assert "head_conv" in [layer.name for layer in swapped.layers]
    with pytest.raises(ValueError, match="no layer called head_"):
        heads.read(model)
    strange = keras.Model(inputs, layers.Dense(3, name="head_dense")(x))
    with pytest.raises(ValueError, match="no layer called head_out"):
        heads.read(strange)


@pytest.mark.parametrize("head", ["gbn4_fc8", "brn_fc8", "fbn_out", "bn-beta_out-bias"])
def test_plain_norms_are_read_as_batch_norms(head):
    model = resnet8((8, 8, 1), head, 3, seed=0)
    assert heads.read(plain(model)) == heads.read(model).replace("gbn4", "bn").replace("brn", "bn").replace(
        "fbn", "bn"
    )


def test_the_label_input_is_taken_from_the_data_the_model_is_fitted_on():
    model = resnet8((8, 8, 1), "cdropout0.5_fc8", 3, seed=0, class_counts=[3, 2, 1])
    x, y = images(12, 1, 8), np.arange(12, dtype="int32") % 3
    data = tf.data.Dataset.from_tensor_slices(((x, y), y)).batch(5)
    names = recompute_batch_stats(model, data)
    assert names[0] == "stem_bn"
    inserted = heads.insert_bn(model, data)
    np.testing.assert_allclose(inserted([x, y]), model([x, y]), atol=1e-5)
    assert heads.fold(inserted, [x, y]).difference <= 1e-5
    assert heads.fold(inserted, x).difference <= 1e-5


def test_new_layers_compute_in_the_models_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = resnet8((8, 8, 1), "fc8", 3, seed=0)
    finally:
        keras.config.set_dtype_policy(policy)
    x = images(12, 1, 8)
    assert heads.insert_bn(half, x).get_layer("head_bn").compute_dtype == "bfloat16"
    assert heads.swap(half, "bn_fc8").get_layer("head_fc").compute_dtype == "bfloat16"
    assert heads.swap(half, "bn_fc8").output.dtype == "float32"
    assert keras.config.dtype_policy().name == policy.name


def test_several_outputs_and_lambdas():
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="norm")(layers.Lambda(lambda x: x * 2)(inputs))
    model = shaken(keras.Model(inputs, {"a": layers.Dense(3)(x), "b": layers.Dense(2)(x)}))
    data = np.random.default_rng(0).normal(size=(9, 6)).astype("float32")
    copied = fold_batch_norm(model)
    np.testing.assert_allclose(copied(data)["b"], model(data)["b"], atol=1e-5)


def test_insert_before_a_layer_of_several_inputs():
    inputs = keras.Input((4, 4, 3), name="head_bn")
    x = layers.GlobalAveragePooling2D()(inputs)
    total = layers.Add(name="sum")([x, ops.multiply(x, 2.0)])
    model = keras.Model(inputs, layers.Dense(2, name="out")(total))
    data = images(6, 3, 4)
    assert "head_bn_2" in [layer.name for layer in heads.insert_bn(model, data, "out").layers]
    for target in ("sum", "multiply"):
        name = next(c.operation.name for c in model_calls(model) if c.operation.name.startswith(target))
        with pytest.raises(UsageError, match="must be a layer that reads one tensor"):
            heads.insert_bn(model, data, name)


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    for change in (heads.fold, lambda m: heads.swap(m, "fc"), lambda m: heads.insert_bn(m, images())):
        with pytest.raises(UsageError, match="must be a built functional or Sequential model"):
            change(Own(name="own"))


def ensemble():
    """Two nets in which every layer of the one has the name of a layer of the other."""
    members = [shaken(resnet8((8, 8, 1), "bn_fc8", 5, seed=i), seed=i) for i in (0, 1)]
    for i, net in enumerate(members):
        net.name = f"member{i}"
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, layers.Average(name="mean")([net(inputs) for net in members]))


def test_an_ensemble_can_be_changed_in_every_way():
    model, x = ensemble(), images(16, size=8)
    expected = model.predict(x, verbose=0)
    inserted = heads.insert_bn(model, x, "member1/head_out")
    np.testing.assert_allclose(inserted.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert "head_bn" in norms(inserted) and "member1_head_bn" in norms(inserted)
    for folded in (heads.fold(model).model, fold_batch_norm(model)):
        np.testing.assert_allclose(folded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert not [name for name in norms(fold_batch_norm(model)) if "head_bn" in name]
    np.testing.assert_allclose(plain(model).predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="before: layer 'head_out' is not in model"):
        heads.insert_bn(model, x, "head_out")


def test_a_siamese_net_whose_layers_are_called_twice():
    branch = shaken(resnet8((8, 8, 1), "bn_fc8", 5, seed=0))
    a, b = keras.Input((8, 8, 1), name="a"), keras.Input((8, 8, 1), name="b")
    model = keras.Model([a, b], layers.Dense(2, name="same")(layers.Subtract()([branch(a), branch(b)])))
    x = [images(6, size=8), images(6, size=8)[::-1].copy()]
    expected = model.predict(x, verbose=0)
    for changed in (plain(model), fold_batch_norm(model), heads.insert_bn(model, x, "same")):
        np.testing.assert_allclose(changed.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [*dict.fromkeys(text for _, text in SAME_HEAD), *PARTS])
def test_a_text_is_read_from_the_models_config(text):
    model = build(text, fc_units=5)
    read = heads.read(keras.Model.from_config(model.get_config()))
    assert all(t.number for t in heads.parse(read).tokens if t.name in ("fc", "dense"))
    rebuilt = build(read)
    assert [layer.get_config() for layer in head_layers(rebuilt)] == [
        layer.get_config() for layer in head_layers(model)
    ]
    assert heads.read(rebuilt) == read


def test_read_needs_a_head_of_bnhead():
    with pytest.raises(ValueError, match="no layer called head_"):
        heads.read(keras.Sequential([keras.Input((4, 4, 8)), keras.layers.Flatten()]))
    assert heads.read(resnet8((8, 8, 1), "bn_fc", 10)) == "bn_fc256"


def test_a_head_with_labels_predicts_without_them():
    model = build("cdropout0.9_out")
    assert [tensor.name for tensor in model.inputs][1] == "label"
    predicting = heads.inference(model)
    assert len(predicting.inputs) == 1
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 8)).astype("float32")
    labels = np.full(5, 2, "int32")
    np.testing.assert_array_equal(predicting(x), model([x, labels]))
    assert np.abs(model([x, labels], training=True) - predicting(x)).max() > 0.1
    assert predicting.get_layer("head_out") is model.get_layer("head_out")
    plain = build("fc")
    assert heads.inference(plain) is plain


def test_feature_shape():
    assert heads.feature_shape(build("bn_fc")) == (4, 4, 8)
    assert heads.feature_shape(build("cdropout0.5_gap_fc")) == (4, 4, 8)
    with pytest.raises(ValueError, match="no layer called head_"):
        heads.feature_shape(keras.Sequential([keras.Input((4, 4, 8)), keras.layers.Flatten()]))
