"""Attacks against a reference in NumPy, with gradients by differences."""

import keras
import numpy as np
import pytest
from keras import ops

from bnhead.training.attack import FROM_CLEAN, Attack, adversarial, perturbed


def net(classes=3):
    """A smooth net with batch norm and dropout on images of 2 x 2 pixels, compiled."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(6, "tanh")(x))
    model = keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Dropout(0.5)(x)))
    for weight in model.layers[4].weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 1.5, weight.shape))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def data(examples=7):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, 2, 2, 1)).astype("float32")
    images[0] = [[[0.0], [255.0]], [[1.0], [254.0]]]  # where the range of pixels cuts the box
    return images, rng.integers(0, 3, examples)


def losses(model, images, labels):
    """The loss of each image, in float64 from the weights."""
    first, norm, last = model.layers[3], model.layers[4], model.layers[6]
    w, b, gamma, beta, mean, variance, v, c = (
        np.asarray(weight, "float64") for layer in (first, norm, last) for weight in layer.weights
    )
    x = np.tanh((images.reshape(len(images), -1) / 127.5 - 1) @ w + b)
    logits = (gamma * (x - mean) / np.sqrt(variance + norm.epsilon) + beta) @ v + c
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), labels]


def brute_force(model, images, labels, attack, sign):
    """The attack, each pixel's slope from two losses."""
    original, x = images.astype("float64"), images.astype("float64")
    for _ in range(attack.steps):
        slope = np.zeros_like(x)
        for pixel in np.ndindex(x.shape[1:]):
            shift = np.zeros(x.shape[1:])
            shift[pixel] = 1e-3
            rise = losses(model, x + shift, labels) - losses(model, x - shift, labels)
            slope[(slice(None), *pixel)] = rise
        x = x + sign * attack.length * np.sign(slope)
        x = np.clip(np.clip(x, original - attack.epsilon, original + attack.epsilon), 0, 255)
    return x


@pytest.mark.parametrize(
    "attack",
    [
        Attack(4, 5, random_start=False),
        Attack(3, 1, 2.5, random_start=False),
        Attack(8, 3, random_start=False),
    ],
)
def test_against_brute_force(attack):
    model, (images, labels) = net(), data()
    generator = keras.random.SeedGenerator(0)
    changed = adversarial(model, ops.convert_to_tensor(images), labels, attack, generator)
    np.testing.assert_allclose(changed, brute_force(model, images, labels, attack, 1), atol=1e-3)
    assert losses(model, np.asarray(changed), labels).mean() > losses(model, images, labels).mean()


def test_a_targeted_attack_goes_towards_another_class(monkeypatch):
    model, (images, labels) = net(), data()
    monkeypatch.setattr(keras.random, "randint", lambda shape, low, high, seed: np.full(shape[0], 2))
    attack = Attack(6, 4, targeted=True, random_start=False)
    changed = adversarial(model, ops.convert_to_tensor(images), labels, attack, None)
    expected = brute_force(model, images, (labels + 2) % 3, attack, -1)
    np.testing.assert_allclose(changed, expected, atol=1e-3)


def test_targets_are_never_the_label_and_all_others():
    labels, seen = np.repeat(np.arange(3), 50), []
    model = net()

    def compute_loss(x, y, y_pred, **options):
        seen.append(np.asarray(y))
        return ops.sum(y_pred)

    model.compute_loss = compute_loss
    adversarial(
        model, ops.zeros((150, 2, 2, 1)), labels, Attack(1, 1, targeted=True), keras.random.SeedGenerator(0)
    )
    pairs = {(int(label), int(target)) for label, target in zip(labels, seen[0], strict=True)}
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}


def test_starts_are_random_in_the_box_but_for_a_share_at_the_image():
    images = np.full((2000, 2, 2, 1), 100, "float32")
    started = adversarial(
        net(), ops.convert_to_tensor(images), np.zeros(2000, int), Attack(5, 0), keras.random.SeedGenerator(3)
    )
    change = np.asarray(started) - images
    stayed = (change == 0).all((1, 2, 3))
    assert stayed.mean() == pytest.approx(FROM_CLEAN, abs=0.03)
    moved = change[~stayed]
    assert np.abs(moved).max() <= 5 and np.abs(moved.mean()) < 0.2
    assert moved.std() == pytest.approx(5 / 3**0.5, rel=0.03)


def test_the_attack_changes_nothing_in_the_model():
    model, (images, labels) = net(), data()
    before = [np.array(v) for v in model.variables]
    adversarial(model, ops.convert_to_tensor(images), labels, Attack(4, 3), keras.random.SeedGenerator(0))
    for after, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(after, value)


def test_lengths_of_steps_and_a_box_of_nothing():
    lengths = [attack.length for attack in (Attack(), Attack(8, 4), Attack(2, 4), Attack(8, 4, 0.5))]
    assert lengths == [1, 2, 1, 0.5]
    images = ops.convert_to_tensor(data()[0])
    np.testing.assert_array_equal(perturbed(images, lambda x: x + 1, Attack(0, 3), start=1.0), images)
