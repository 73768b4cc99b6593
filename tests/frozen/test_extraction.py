"""Features: equal to the net's outputs, stored by everything that they depend on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead import models
from bnhead.data import load
from bnhead.data.memory import InMemory
from bnhead.data.split import Recipe
from bnhead.errors import UsageError
from bnhead.frozen import extraction
from bnhead.frozen.extraction import features, joined, net_sha256, pooled


def net(seed=0, scale=1 / 127.5):
    preprocessing = keras.layers.Rescaling(scale, offset=-1.0, name="scale_pixels")
    return models.build("resnet8", (8, 8, 1), preprocessing=preprocessing, seed=seed)


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir, validation=0.1)


@pytest.fixture(scope="module")
def extractor():
    return pooled(net())


def moved(model, step=0.1):
    """Statistics as after a training: a frozen norm uses them."""
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            layer.moving_mean.assign(keras.ops.full(layer.moving_mean.shape, step))
    return model


def test_features_are_the_nets_outputs_in_inference(digits, tmp_path):
    extractor = moved(pooled(net()))
    seen = []
    found = features(extractor, digits, directory=tmp_path, report=lambda *numbers: seen.append(numbers))
    for split, array in (("train", found.train), ("validation", found.validation), ("test", found.test)):
        images = digits.splits[split].images
        np.testing.assert_allclose(array, extractor.predict(images, verbose=0), rtol=1e-5, atol=1e-6)
        assert array.shape == (len(images), 64)
    np.testing.assert_array_equal(found.train_labels, digits.train.labels)
    np.testing.assert_array_equal(found.test_labels, digits.test.labels)
    assert seen[-1] == (1797, 1797) and seen == sorted(seen)


def test_stored_features_are_read_again(digits, extractor, tmp_path, monkeypatch):
    first = features(extractor, digits, directory=tmp_path)
    monkeypatch.setattr(extraction, "_computed_rows", lambda *_: pytest.fail("computed again"))
    again = features(pooled(net()), digits, directory=tmp_path)  # another object of the same net
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.test, first.test)


@pytest.mark.parametrize("change", ["weight", "statistics", "preprocessing", "data", "pooling"])
def test_a_change_never_meets_the_stored_features(digits, tmp_path, change):
    before = features(pooled(net()), digits, directory=tmp_path)
    model, data = pooled(net()), digits
    if change == "weight":
        kernel = next(layer.kernel for layer in model.layers if hasattr(layer, "kernel"))
        values = keras.ops.convert_to_numpy(kernel).copy()
        values.flat[0] += 1
        kernel.assign(values)
    elif change == "statistics":
        model = moved(model)
    elif change == "preprocessing":
        model = pooled(net(scale=1 / 255))
    elif change == "pooling":
        model = pooled(net(), "gmp")
    else:
        images = digits.test.images.copy()
        images[7] = 255 - images[7]
        import dataclasses

        data = dataclasses.replace(digits, test=InMemory(images, digits.test.labels))
    after = features(model, data, directory=tmp_path)
    assert after.fingerprint != before.fingerprint
    differs = (after.test != before.test).any(1)
    assert differs.sum() == 1 if change == "data" else differs.mean() > 0.9
    np.testing.assert_allclose(after.test, model.predict(data.test.images, verbose=0), rtol=1e-5, atol=1e-6)


def test_an_interrupted_pass_gives_the_same_features(digits, extractor, tmp_path, monkeypatch):
    recipe = Recipe("crop_flip")
    whole = features(extractor, digits, passes=2, recipe=recipe, directory=tmp_path / "whole")
    monkeypatch.setattr(extraction.store, "_SYNCED", -1.0)

    stop = digits.train.size + 640  # in the augmented pass

    def interrupt(done, total):
        if done == stop:
            raise KeyboardInterrupt

    options = {"passes": 2, "recipe": recipe, "directory": tmp_path / "resumed"}
    with pytest.raises(KeyboardInterrupt):
        features(extractor, digits, report=interrupt, **options)
    seen = []
    resumed = features(extractor, digits, report=lambda done, total: seen.append(done), **options)
    assert seen[0] == stop + extraction.BATCH  # the rows before were on the disk
    assert resumed.fingerprint == whole.fingerprint
    for a, b in zip(resumed.passes, whole.passes, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (whole.passes[0] != whole.passes[1]).any(1).mean() > 0.5  # the second is augmented


def test_further_passes_need_an_augmentation(digits, extractor, tmp_path):
    with pytest.raises(UsageError, match="passes must be 1 without an augmentation"):
        features(extractor, digits, passes=2, directory=tmp_path)


def test_an_epoch_trains_on_one_pass(digits, extractor, tmp_path):
    found = features(extractor, digits, passes=2, recipe=Recipe("crop"), directory=tmp_path)
    data = found.dataset(digits)
    assert data.shape == (64,) and data.train.size == digits.train.size
    assert data.train.fingerprint() == digits.train.fingerprint()
    batches = list(data.train.training_batches(100, 3, 5, Recipe()).as_numpy_iterator())
    images = list(digits.train.training_batches(100, 3, 5, Recipe()).as_numpy_iterator())
    steps = digits.train.size // 100
    for step, ((x, y), (_, labels)) in enumerate(zip(batches, images, strict=True)):
        np.testing.assert_array_equal(y, labels)  # the order is that of the images
        rows = found.passes[step // steps % 2]
        positions = [np.flatnonzero((rows == row).all(1))[0] for row in x[:3]]
        np.testing.assert_array_equal(found.train_labels[positions], y[:3])
    np.testing.assert_array_equal(
        np.concatenate([x for x, _ in data.test.evaluation_batches(100)]), found.test
    )
    resumed = list(data.train.training_batches(100, 2, 5, Recipe(), 1, 2).as_numpy_iterator())
    np.testing.assert_array_equal(resumed[0][0], batches[steps + 2][0])
    assert sum(len(x) for x, _ in data.train.evaluation_batches(100)) == data.train.size


def test_names_and_seeds_of_layers_do_not_change_the_hash():
    first = net()
    keras.layers.Dense(1)  # Keras numbers on
    second = net(seed=1)
    assert net_sha256(first) != net_sha256(second)
    second.set_weights(first.get_weights())
    assert net_sha256(first) == net_sha256(second)


def test_arguments_of_operations_are_hashed():
    def padded(width):
        inputs = keras.Input((4, 4, 1))
        return keras.Model(inputs, keras.ops.pad(inputs, ((0, 0), (width, width), (0, 0), (0, 0))))

    assert net_sha256(padded(1)) == net_sha256(padded(1)) != net_sha256(padded(2))


def test_joined_models_compute_one_after_the_other():
    extractor = pooled(net())
    inputs = keras.Input((64,))
    head = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    whole = joined(extractor, head)
    expected = head.predict(extractor.predict(images, verbose=0), verbose=0)
    np.testing.assert_allclose(whole.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_a_resumed_pass_draws_the_noise_of_its_images():
    class Noisy:
        """A split that adds the index of an image, as streamed noise depends on it."""

        corruption, size = "gaussian_noise:3", 3 * extraction.BATCH

        def evaluation_batches(self, size):
            images = np.arange(self.size, dtype="float32")
            return tf.data.Dataset.from_tensor_slices((images, images)).batch(size)

    whole, resumed = (
        np.concatenate([*extraction._computed_rows(lambda x: x, Noisy(), None, 0, None, first)])
        for first in (0, extraction.BATCH)
    )
    np.testing.assert_array_equal(whole[extraction.BATCH :], resumed)
