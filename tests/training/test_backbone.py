"""A frozen backbone: a run on features is the run of the frozen net end to end."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead import models
from bnhead.census import Probe
from bnhead.data import load
from bnhead.data.split import Recipe
from bnhead.devices.replicas import Replicas
from bnhead.frozen import extraction, store
from bnhead.heads.surgery import is_of_a_head
from bnhead.runs.predictions import read_predictions
from bnhead.training import train
from bnhead.training.backbone import FeatureData, images_of
from bnhead.training.build import Reuse, build_model, optimizer
from bnhead.training.estimate import estimate, format_estimate
from bnhead.training.feed import Feed
from bnhead.training.tasks import compile_for_task


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


@pytest.fixture(scope="module")
def weights(short_config, digits, tmp_path_factory):
    """A backbone whose moving averages are those of a training: a frozen norm must use them."""
    model = build_model(short_config(), digits)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            layer.moving_mean.assign(random.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(random.uniform(0.5, 2, layer.moving_variance.shape))
    path = tmp_path_factory.mktemp("weights") / "net.keras"
    model.save(path)
    return str(path)


@pytest.fixture(scope="module")
def frozen(short_config, weights):
    def config(**settings):
        defaults = {"freeze_backbone": True, "augment": "none", "weights": weights, "learning_rate": 0.05}
        return short_config(**{**defaults, **settings})

    return config


def end_to_end(config, data):
    """The whole net with a frozen backbone, compiled and trained by Keras on the same images."""
    images_alone = dataclasses.replace(config, freeze_backbone=False)
    model = build_model(images_alone, data)
    for layer in model.layers:
        layer.trainable = is_of_a_head(layer.name)
    compile_for_task(model, config.task, data, optimizer(config, model, data.train.size // config.batch_size))
    feed = Feed.of(images_alone, data, Replicas())
    history = model.fit(
        feed.train(0, 0), epochs=config.epochs, steps_per_epoch=feed.steps, shuffle=False, verbose=0
    )
    return model, history.history


@pytest.mark.parametrize(
    "head",
    [
        "bn_dropout0.3_fc",
        pytest.param("bn_gap_fc", marks=pytest.mark.slow),
        pytest.param("catpool_fc", marks=pytest.mark.slow),
    ],
)
def test_a_run_on_features_is_the_run_of_the_frozen_net(frozen, digits, head):
    config = frozen(head=head, epochs=3)
    result = train(config)
    model, history = end_to_end(config, digits)
    np.testing.assert_allclose(result.history["loss"], history["loss"], rtol=1e-4)
    expected = model.predict(digits.test.images, verbose=0)
    np.testing.assert_allclose(read_predictions(Path(config.workdir)).outputs, expected, rtol=1e-3, atol=1e-4)
    assert result["test_accuracy"] == pytest.approx((expected.argmax(1) == digits.test.labels).mean())
    assert result["parameters"] == model.count_params()
    saved = keras.saving.load_model(Path(config.workdir) / "model.keras")
    np.testing.assert_allclose(saved.predict(digits.test.images, verbose=0), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("head", ["out", "mae_probe", "bn_gap_out"])
def test_of_a_head_without_activation_the_features_are_counted(frozen, digits, head):
    config = frozen(head=head, epochs=1)
    result = train(config)
    model, _ = end_to_end(config, digits)
    whole = keras.saving.load_model(Path(config.workdir) / "model.keras")
    outputs = model.predict(digits.test.images, verbose=0)
    np.testing.assert_allclose(whole.predict(digits.test.images, verbose=0), outputs, rtol=1e-3, atol=1e-4)
    # after an average of ReLUs a feature is 0 if the unit is silent everywhere
    counted = Probe(model).count(digits.test.images)
    (expected,) = counted.layers.values()
    for name in ("dataset", "per_input"):
        assert result[f"dead/head_features/{name}"] == pytest.approx(expected.figures()[name])
    assert expected.figures()["per_input"] > 0


def test_norms_in_training_mode_give_another_result(frozen, digits):
    """What people meet who freeze weights and forget the norms: the test above can fail."""
    config = frozen(epochs=1)
    model = build_model(dataclasses.replace(config, freeze_backbone=False), digits)
    result = train(config)
    feed = Feed.of(dataclasses.replace(config, freeze_backbone=False), digits, Replicas())
    history = model.fit(feed.train(0, 0, 1), steps_per_epoch=feed.steps, shuffle=False, verbose=0).history
    assert abs(result.history["loss"][0] - history["loss"][0]) > 0.01


def test_the_features_are_computed_once_for_all_heads_and_seeds(frozen, monkeypatch):
    train(frozen(head="fc", epochs=1))
    monkeypatch.setattr(store, "_write", lambda *_: pytest.fail("computed again"))
    first, second = (train(frozen(head="bn_fc", epochs=1, seed=seed)) for seed in (0, 1))
    assert first["test_loss"] != second["test_loss"]


def test_further_passes_are_augmented_and_trained_in_turn(frozen, digits):
    config = frozen(augment="crop", feature_passes=2)
    reuse = Reuse()
    data = reuse.data(config)
    assert isinstance(data, FeatureData) and images_of(data) is reuse.images(config)
    plain, augmented = np.split(np.asarray(data.train.images), 2)
    scaling = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale_pixels")
    backbone = models.build("resnet8", digits.shape, weights=config.weights, preprocessing=scaling)
    extractor = extraction.pooled(backbone)
    np.testing.assert_allclose(plain, extractor.predict(digits.train.images, verbose=0), rtol=1e-4, atol=1e-5)
    feed = Feed.of(config, data, Replicas())
    assert feed.recipe == Recipe(classes=10)
    for epoch, rows in enumerate((plain, augmented, plain)):
        features, _ = next(iter(feed.train(epoch, 0, 1)))
        assert (rows == features.numpy()[0]).all(1).any()


def test_a_dry_run_stores_no_features(frozen, digits, tmp_path):
    config = frozen(data_dir=str(tmp_path))
    estimated = estimate(config)
    assert not (tmp_path / extraction.FOLDER).exists()
    assert estimated["seconds_extracting"] > 0 and estimated["trainable"] < estimated["parameters"]
    assert "for the features, if none are kept" in " ".join(format_estimate(estimated, config).split())


def test_the_best_epoch_is_a_net_from_images(frozen, digits):
    config = frozen(validation=0.2, head="fc")
    result = train(config)
    best = keras.saving.load_model(Path(config.workdir) / "best.keras")
    outputs = best.predict(digits.test.images, verbose=0)
    accuracy = (outputs.argmax(1) == digits.test.labels).mean()
    assert result["best"]["test_accuracy"] == pytest.approx(accuracy)
    assert json.loads((Path(config.workdir) / "config.json").read_text())["freeze_backbone"] is True
