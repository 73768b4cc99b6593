"""Accuracy under attack of a linear net, whose worst case is known, and on corrupted images."""

import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.data.corruptions import CORRUPTIONS, corrupted
from bnhead.data.memory import InMemory
from bnhead.training.robustness import robust_figures


def linear(weight, bias):
    """A net of two classes with logits 0 and weight . pixels + bias."""
    inputs = keras.Input((4, 4, 1))
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([np.stack([np.zeros(16), weight], 1), np.array([0, bias])])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("epsilon", [0.0, 3.0, 12.0])
def test_a_linear_net_is_right_on_what_no_change_within_the_box_turns_over(epsilon):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 4, 4, 1)).astype("uint8")
    weight = rng.normal(size=16) / 100
    pixels = images.reshape(200, 16).astype("float64")
    bias = -np.median(pixels @ weight)
    labels = (pixels @ weight + bias > 0).astype("int64")
    labels[:20] = 1 - labels[:20]
    sign = np.where(labels == 1, -1, 1)[:, None] * np.sign(weight)  # the change that lowers the margin most
    worst = np.clip(pixels + epsilon * sign, 0, 255) @ weight + bias
    figures = robust_figures(linear(weight, bias), InMemory(images, labels), epsilon, batch_size=64)
    assert figures["test_robust_accuracy"] == pytest.approx(np.mean((worst > 0) == labels), abs=1e-9)
    changed = {name: corrupted(images, f"{name}:3") for name in CORRUPTIONS}
    assert (changed.pop("blur") == images).all(), "of less than a pixel"
    scores = [np.mean((x.reshape(200, 16) @ weight + bias > 0) == labels) for x in changed.values()]
    assert figures["test_corrupted_accuracy"] == pytest.approx(np.mean(scores), abs=1e-9)


def test_the_loss_and_the_labels_of_the_training_do_not_matter():
    """Mixup trains on shares of the classes, and some heads read labels."""
    random = np.random.default_rng(0)
    split = InMemory(random.integers(0, 256, (64, 4, 4, 1)).astype("uint8"), np.arange(64) % 3)
    inputs = keras.Input((4, 4, 1))
    options = {"name": "net", "class_counts": [22, 21, 21]}
    models = [heads.attach(text, inputs, inputs, 3, **options) for text in ("fc8", "cdropout0.5_fc8")]
    losses = keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy
    for layer in (layer for layer in models[0].layers if layer.weights):
        models[1].get_layer(layer.name).set_weights(layer.get_weights())
    for model, loss in zip(models, losses, strict=True):
        model.compile("sgd", loss(from_logits=True))
    first, second = (robust_figures(model, split, 8.0) for model in models)
    assert first == second
