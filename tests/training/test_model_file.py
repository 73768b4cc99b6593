import json
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.errors import CopyError
from bnhead.layers import plain
from bnhead.models import resnet8
from bnhead.runs.directory import RunDirectory
from bnhead.training import model_file, train


def directory(config):
    return Path(config.workdir)


def test_a_file_that_gives_other_outputs_than_the_model_is_no_result(short_config, monkeypatch):
    """Nothing is lost: the checkpoint of the last step is kept, and the same command ends the run."""

    def shifted(model, **options):
        copied = plain(model, **options)
        copied.get_layer("head_out").bias.assign_add([1000.0] * 10)
        return copied

    config = short_config(epochs=1)
    monkeypatch.setattr(model_file, "plain", shifted)
    with pytest.raises(
        CopyError, match=r"model\.keras, the file of model 'resnet8' differs from it by"
    ) as caught:
        train(config)
    assert caught.value.exit_status == 8
    names = {path.name for path in directory(config).iterdir()}
    assert not {"model.keras", "result.json"} & names
    assert json.loads((directory(config) / "status.json").read_text())["status"] == "failed"
    monkeypatch.setattr(model_file, "plain", plain)
    assert train(config)["status"] == "finished" and (directory(config) / "model.keras").is_file()


# those whose plain copies are not the layers themselves
@pytest.mark.parametrize(
    "head", ["bn_fc", "center_scale_fc", "brn_fc", "fbn_fc", "noise_dropout0.5_fc", "l2_out"]
)
def test_a_later_file_has_the_values_of_its_time(head, tmp_path, monkeypatch):
    model = resnet8((8, 8, 1), head, 3, seed=0)
    file, images = model_file.ModelFile(model), np.random.default_rng(0).normal(size=(4, 8, 8, 1))
    file.write(RunDirectory(tmp_path), "first.keras", images)
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.uniform(0.1, 0.3, w.shape).astype(w.dtype) for w in model.get_weights()])
    load, loaded = keras.saving.load_model, []
    monkeypatch.setattr(keras.saving, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k))
    file.write(RunDirectory(tmp_path), "second.keras", images)
    assert not loaded, "the layers are those of the first file"
    expected = model(images, training=False)
    np.testing.assert_allclose(load(tmp_path / "second.keras")(images), expected, rtol=1e-4, atol=1e-5)
    difference = np.abs(load(tmp_path / "first.keras")(images) - expected)
    assert difference.max() > 0.01


def test_a_later_file_that_differs_from_its_model_is_refused(tmp_path, monkeypatch):
    model, images = resnet8((8, 8, 1), "bn_fc", 3, seed=0), np.ones((2, 8, 8, 1), "float32")
    file = model_file.ModelFile(model)
    file.write(RunDirectory(tmp_path), "model.keras", images)
    before = (tmp_path / "model.keras").read_bytes()
    model.get_layer("head_out").bias.assign_add([5.0, 0.0, 0.0])
    monkeypatch.setattr(model_file, "update_plain", lambda copied, model: None)
    with pytest.raises(CopyError, match=r"model\.keras, the file of model 'resnet8' differs"):
        file.write(RunDirectory(tmp_path), "model.keras", images)
    assert (tmp_path / "model.keras").read_bytes() == before
