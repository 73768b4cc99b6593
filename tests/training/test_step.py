"""The training step with attacks: which images train on which route, and that a run resumes exactly."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.layers import RoutedBatchNormalization, at_route, with_routes
from bnhead.training import TrainConfig, train
from bnhead.training.attack import Attack
from bnhead.training.step import train_adversarially
from tests.training.test_attack import data, net

RNG_FREE = {"random_start": False}


def recording(model, seen):
    """The model with a training step that only keeps what it gets, and the outputs on it."""

    def step(batch):
        images, labels = batch
        seen.append((np.asarray(images), np.asarray(labels), np.asarray(model(images, training=False))))
        return {}

    model.train_step = step
    return model


@pytest.mark.parametrize(("share", "clean", "attacked"), [(0.0, 7, 7), (0.3, 5, 2), (0.01, 6, 1)])
def test_clean_and_adversarial_images_and_their_routes(share, clean, attacked):
    seen, plain, (images, labels) = [], net(), data()
    model = with_routes(plain, 2, routed_affine=True, as_input=False)
    (norm,) = (layer for layer in model.layers if isinstance(layer, RoutedBatchNormalization))
    norm.branches[1].gamma.assign(norm.branches[1].gamma * -0.7)
    model.compile("sgd", plain.loss)
    attack = Attack(4, 2, **RNG_FREE)
    train_adversarially(recording(model, seen), attack, share=share)
    model.train_step((images, labels))
    (trained, targets, outputs), first = seen[0], 7 - attacked
    assert len(trained) == clean + attacked and targets.tolist() == [*labels[:clean], *labels[first:]]
    np.testing.assert_array_equal(trained[:clean], images[:clean])
    change = np.abs(trained[clean:] - images[first:])
    assert 0 < change.max() <= 4
    # the attack goes through the auxiliary norms, and training through each part's own
    main, auxiliary = at_route(model, 0), at_route(model, 1)
    np.testing.assert_allclose(outputs[:clean], main(trained[:clean]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs[clean:], auxiliary(trained[clean:]), rtol=1e-4, atol=1e-4)
    on_auxiliary = loss_of(plain, auxiliary, trained[clean:], labels[first:])
    assert on_auxiliary > loss_of(plain, auxiliary, images[first:], labels[first:])


def loss_of(plain, model, images, labels):
    return float(plain.compute_loss(None, labels, model(images)))


def fitted(steps=4, routed=True, learning_rate=0.05):
    """A net after a few compiled steps, each on 8 images."""
    plain = net()
    model = with_routes(plain, 2, routed_affine=True, as_input=False) if routed else plain
    model.compile(keras.optimizers.SGD(learning_rate), plain.loss)
    train_adversarially(model, Attack(6, 2), routed=routed, seed=5)
    images, labels = data(8)
    model.fit(
        np.tile(images, (steps, 1, 1, 1)), np.tile(labels, steps), batch_size=8, shuffle=False, verbose=0
    )
    return model


def test_a_compiled_step_updates_both_routes_and_one_route_without_them():
    model = fitted()
    (norm,) = (layer for layer in model.layers if isinstance(layer, RoutedBatchNormalization))
    main, auxiliary = (np.asarray(branch.moving_mean) for branch in norm.branches)
    assert np.abs(main - auxiliary).max() > 0
    assert not any(isinstance(layer, RoutedBatchNormalization) for layer in fitted(routed=False).layers)


def test_at_a_learning_rate_of_0_the_main_norms_see_clean_images_only():
    model, plain = fitted(learning_rate=0.0), net()
    plain.compile(keras.optimizers.SGD(0.0), plain.loss)
    images, labels = data(8)
    for _ in range(4):
        plain.train_on_batch(images, labels)
    (norm,) = (layer for layer in model.layers if isinstance(layer, RoutedBatchNormalization))
    np.testing.assert_allclose(norm.branches[0].moving_mean, plain.layers[4].moving_mean, rtol=1e-5)
    np.testing.assert_allclose(norm.branches[0].moving_variance, plain.layers[4].moving_variance, rtol=1e-5)


ON_JAX = """
import numpy as np
from tests.training.test_step import fitted

assert fitted.__module__
model = fitted()
print([f"{float(np.abs(np.asarray(v)).sum()):.5f}" for v in model.weights], model.history.history["loss"])
"""


@pytest.mark.slow
def test_on_jax_both_routes_train_too():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", ON_JAX]
    runs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300) for _ in "12"
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout and "nan" not in runs[0].stdout


class Stop(keras.callbacks.Callback):
    """Ends a run after its first epoch, as an error does."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("adversarial", ["pgd_cheap", pytest.param("pgd_one_bn", marks=pytest.mark.slow)])
def test_a_run_resumes_exactly_and_measures_robustness(short_config, adversarial):
    settings = {
        **{"adversarial": adversarial, "adversarial_epsilon": 8.0, "robustness": adversarial == "pgd_cheap"},
        **{"train_examples": 512, "checkpoint_seconds": 0.0},
    }
    whole, parts = short_config(**settings), short_config(**settings)
    result = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(parts, [Stop()])
    assert dict(train(parts)) == dict(result)
    if adversarial == "pgd_cheap":
        assert 0 <= result["test_robust_accuracy"] <= result["test_accuracy"]
        assert 0 <= result["test_corrupted_accuracy"] <= 1
        saved = keras.saving.load_model(Path(whole.workdir, "model.keras"))
        assert {type(layer).__module__.split(".")[0] for layer in saved.layers} == {"keras"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "fgsm"}, "adversarial 'fgsm' is not known"),
        (
            {"adversarial_epsilon": -1.0},
            "adversarial_epsilon must be a finite number of at least 0, got -1.0",
        ),
        ({"adversarial_steps": 0}, "adversarial_steps must be at least 1, got 0"),
        ({"adversarial": "pgd", "mixup": 0.2}, "adversarial pgd needs mixup 0.0, got 0.2"),
        ({"adversarial": "pgd", "head": "gbn8_fc"}, "head 'gbn8_fc': gbn has no second set of statistics"),
        ({"adversarial": "pgd_one_bn", "head": "cdropout0.5_fc"}, "reads labels, which not every image"),
        ({"robustness": True, "task": "multilabel"}, "robustness needs task classification"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as error:
        TrainConfig(**settings)
    assert "\n" not in str(error.value)
