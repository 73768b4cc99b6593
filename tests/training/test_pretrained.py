from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.data import load
from bnhead.errors import UsageError
from bnhead.training import pretrained, train
from bnhead.training.build import build_model


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (3, 3, 6, 1), (5, 7)])
def test_shuffled_weights_keep_their_outputs_and_norms(shape):
    kernel = np.random.default_rng(0).normal(size=shape)
    mixed = pretrained.shuffled(kernel, np.random.default_rng(1))
    outputs = -2 if shape[-1] == 1 else -1
    for index in range(shape[outputs]):
        before, after = (np.take(array, index, outputs).ravel() for array in (kernel, mixed))
        assert (before != after).any()
        np.testing.assert_array_equal(np.sort(before), np.sort(after))


@pytest.mark.parametrize("control", ["random", "shuffled"])
def test_a_control_has_other_kernels_and_statistics_of_the_images(short_config, digits, control):
    model = build_model(short_config(), digits)
    model.get_layer("stem_bn").gamma.assign(np.full(16, 2.0))
    before = {layer.name: layer.get_weights() for layer in model.layers}
    pretrained.apply_control(model, control, digits)
    for layer in model.layers:
        kernels = [
            (a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True) if a.ndim == 4
        ]
        assert all((a != b).mean() > 0.7 for a, b in kernels)
        if control == "shuffled":
            assert all(np.linalg.norm(a) == pytest.approx(np.linalg.norm(b), rel=1e-6) for a, b in kernels)
        if layer.name.startswith("head_"):
            np.testing.assert_equal(layer.get_weights(), before[layer.name])
    norm = model.get_layer("stem_bn")
    assert float(norm.gamma[0]) == (1.0 if control == "random" else 2.0)
    outputs = keras.Model(model.input, norm.output).predict(digits.train.images, verbose=0)
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=0.1)
    np.testing.assert_allclose(outputs.std((0, 1, 2)), float(norm.gamma[0]), rtol=0.1)
    again = build_model(short_config(seed=3), digits)
    pretrained.apply_control(again, "random", digits)
    if control == "random":  # whatever the seed
        np.testing.assert_array_equal(
            again.get_layer("stem_conv").kernel, model.get_layer("stem_conv").kernel
        )


def test_the_first_training_is_done_once_and_gives_the_weights(short_config, data_dir, digits, capsys):
    options = {"pretrain_on": "digits", "pretrain_epochs": 1, "pretrain_size": 300}
    config = short_config(**options)
    folder = Path(data_dir, pretrained.FOLDER)
    others = set(folder.glob("*"))  # of other tests
    model = build_model(config, digits)
    assert "resnet8 is trained on digits first, once, in" in capsys.readouterr().err
    (path,) = set(folder.iterdir()) - others
    source = keras.saving.load_model(path / "model.keras")
    for layer in source.layers:
        if not layer.name.startswith("head_"):
            np.testing.assert_equal(model.get_layer(layer.name).get_weights(), layer.get_weights())
    written = (path / "result.json").stat().st_mtime_ns
    pretrained._trained.cache_clear()  # as in another process
    result = train(short_config(**options, freeze_backbone=True, augment="none", epochs=1, head="fc"))
    assert (path / "result.json").stat().st_mtime_ns == written and result["backbone"] == "frozen"
    pretrained._trained.cache_clear()
    build_model(short_config(**options | {"pretrain_epochs": 2}), digits)
    assert len(set(folder.iterdir()) - others) == 2


def test_weights_of_a_training_that_did_not_learn_are_refused(short_config, digits, monkeypatch):
    monkeypatch.setattr("bnhead.training.run.train", lambda config: {"status": "failed_to_learn"})
    pretrained._trained.cache_clear()
    config = short_config(pretrain_on="digits", pretrain_epochs=1, pretrain_size=301)
    with pytest.raises(UsageError, match=r"pretrain_on digits: the training in .* ended as failed_to_learn"):
        pretrained.weights_of(config, digits)
