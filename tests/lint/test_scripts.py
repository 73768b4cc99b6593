"""Public training scripts with a known mistake, rebuilt small: each is caught by its rule.

The kinds are those of published corpora and linters (NeuraLint, torch-audit, TheDeepChecker) and of threads.
"""

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from bnhead.layers import recompute_batch_stats
from bnhead.lint.linter import check

IMAGES = (load_digits().images[..., None] / 16).astype("float32")
CLASSES = load_digits().target


def convnet(*head, **compiled):
    """The usual small net of tutorials."""
    parts = [layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), *head]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts])
    if compiled:
        model.compile(**compiled)
    return model


def bias_before_norm():
    """NeuraLint 5, torch-audit TA400."""
    return convnet(layers.Dense(64), layers.BatchNormalization(), layers.ReLU(), layers.Dense(10)), {}


def dropout_before_norm():
    """NeuraLint 6."""
    head = layers.Dense(64, "relu"), layers.Dropout(0.5), layers.BatchNormalization(), layers.Dense(10)
    return convnet(*head), {}


def batch_size_one():
    """keras-team/keras#8837, torch-audit TA304."""
    return convnet(layers.Dense(64), layers.BatchNormalization(), layers.Dense(10)), {"batch_size": 1}


def decay_of_everything():
    """torch-audit TA402."""
    head = layers.Dense(64, use_bias=False), layers.BatchNormalization(), layers.Dense(10)
    return convnet(*head, optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.1)), {"epochs": 100}


def one_norm_for_two_views():
    """torch-audit TA501."""
    images = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    norm = layers.BatchNormalization()
    joined = layers.Concatenate()([layers.Flatten()(norm(image)) for image in images])
    data = ([IMAGES, 1 - 2 * IMAGES], CLASSES)
    return keras.Model(images, layers.Dense(10)(joined)), {"data": data}


def filters_without_weights():
    """torch-audit TA405, and the fc layer of a published Keras classifier: weights that decay has eaten."""
    model = convnet(layers.Dense(64, "relu", name="fc"), layers.Dense(10))
    kernel, bias = model.get_layer("fc").get_weights()
    kernel[:, :40], bias[:40] = 0, -0.1
    model.get_layer("fc").set_weights([kernel, bias])
    return model, {}


def momentum_of_pytorch():
    """A port with PyTorch's momentum."""
    return convnet(layers.Dense(64), layers.BatchNormalization(momentum=0.1), layers.Dense(10)), {}


def frozen_backbone_that_moves():
    """kdexd/virtex#16: the backbone's weights are frozen, its norms are not."""
    norm = layers.BatchNormalization(momentum=0.9)
    backbone = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3), norm, layers.ReLU()])
    recompute_batch_stats(backbone, 3 * IMAGES)
    for layer in backbone.layers:
        layer.trainable = isinstance(layer, layers.BatchNormalization)
    parts = layers.GlobalAveragePooling2D(), layers.Dense(10)
    return keras.Sequential([keras.Input((8, 8, 1)), backbone, *parts]), {}


def freezing_in_the_middle():
    """keras-team/keras#9214: trainable is set, and the model is not compiled again."""
    head = layers.Dense(16), layers.BatchNormalization(name="bn"), layers.Dense(10, "softmax")
    model = convnet(*head, optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(IMAGES[:128], CLASSES[:128], verbose=0)
    model.get_layer("bn").trainable = False
    return model, {}


def regression_with_a_norm_at_its_end():
    """discuss.ai.google.dev 31604."""
    ages = (20 + 5 * CLASSES).astype("float32")
    head = layers.Dense(64, "relu"), layers.Dense(1), layers.BatchNormalization()
    return convnet(*head, optimizer="adam", loss="mse"), {"data": (IMAGES, ages)}


def bias_of_zero_for_rare_classes():
    """TheDeepChecker: the last bias against the shares of the labels."""
    head = layers.Dense(64, "relu"), layers.Dense(1, "sigmoid")
    is_nine = ((CLASSES == 9) & (np.arange(len(CLASSES)) % 4 == 0)).astype("int64")
    model = convnet(*head, optimizer="adam", loss="binary_crossentropy")
    return model, {"data": (IMAGES, is_nine)}


def a_class_after_the_other():
    """A generator over folders."""
    order = np.argsort(CLASSES, kind="stable")
    batches = ((IMAGES[order[i : i + 64]], CLASSES[order[i : i + 64]]) for i in range(0, 1797, 64))
    head = layers.BatchNormalization(), layers.Dense(10)
    return convnet(*head), {"data": batches, "batch_size": None}


def a_short_fine_tuning():
    """keras-team/keras#7177: good in training, chance in validation."""
    return convnet(layers.Dense(64), layers.BatchNormalization(), layers.Dense(10)), {"epochs": 3}


EXPECTED = {
    bias_before_norm: "BN101",
    dropout_before_norm: "BN401",
    batch_size_one: "BN203",
    decay_of_everything: "BN204",
    one_norm_for_two_views: "BN102",
    filters_without_weights: "BN501",
    momentum_of_pytorch: "BN202",
    frozen_backbone_that_moves: "BN302",
    freezing_in_the_middle: "BN301",
    regression_with_a_norm_at_its_end: "BN103",
    bias_of_zero_for_rare_classes: "BN205",
    a_class_after_the_other: "BN206",
    a_short_fine_tuning: "BN201",
}


@pytest.mark.parametrize(
    ("script", "rule"), EXPECTED.items(), ids=lambda value: getattr(value, "__name__", value)
)
def test_the_mistake_is_caught(script, rule):
    model, options = script()
    findings = check(model, **{"data": (IMAGES, CLASSES), "batch_size": 64, **options})
    assert rule in {item.rule.id for item in findings.at_least("info")}
    if rule != "BN101":  # whose cost is a share of the parameters
        assert rule in {item.rule.id for item in findings.at_least("warning")}
    if script is filters_without_weights:
        assert "40 by their weights" in findings.by_rule("BN501")[0].what


def test_a_healthy_layer_is_half_silent_and_no_finding():
    """Some tools call a layer critical if more than half of one batch's activations are 0."""
    keras.utils.set_random_seed(0)
    head = layers.Dense(64, use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU()
    findings = check(convnet(*head, layers.Dense(10)), (IMAGES, CLASSES), 64, epochs=10)
    assert not findings.at_least("warning") and not findings.by_rule("BN501")
