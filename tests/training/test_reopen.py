import importlib
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from bnhead.errors import DataError, ResourcesError, RunDirectoryError, UsageError
from bnhead.training import reopen, train
from bnhead.training.build import build_model
from bnhead.training.reopen import open_source


def file(path, shape, pixels=None):
    inputs = keras.Input(shape)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="relu", name="map")(inputs))
    keras.Model(inputs, layers.Dense(10)(x)).save(path / "net.keras")
    return str(path / "net.keras")


def test_a_run_brings_its_data_and_reads_raw_pixels(short_run):
    config, _ = short_run
    source = open_source(model=config.workdir, data_dir=config.data_dir)
    assert source.dataset.name.startswith("digits/") and source.pixels == "by the model itself"
    ((images, labels),) = source.batches(64, 40)
    assert images.shape == (40, 8, 8, 1) and labels.shape == (40,)
    np.testing.assert_array_equal(images, source.dataset.test.images[:40])


def test_a_run_is_opened_with_the_images_of_its_result(short_config):
    limits = {"train_examples": 600, "test_examples": 200, "validation": 0.1}
    changes = {"imbalance": "longtail:4", "label_noise": 0.1, "test_corruption": "gaussian_noise:3"}
    config = short_config(**limits, **changes, batch_size=64, epochs=1, head="out")
    data = train(config)["data"]
    for name in ("", "digits"):
        opened = open_source(config.workdir, name, data_dir=config.data_dir).dataset
        assert opened.test.fingerprint() == data["test_sha256"]
        assert opened.train.fingerprint() == data["train_sha256"]
    other = open_source(config.workdir, "domains:digits,digits+contrast:3", data_dir=config.data_dir).dataset
    assert other.test.size >= 360 and other.train.size >= 1437, "another data set is whole"


def test_numbers_as_labels(data_dir):
    options = {"dataset": "digits_rotation", "data_dir": data_dir, "head": "fc8"}
    source = open_source(model="resnet8", task="regression", **options)
    assert source.model.output.shape == (None, 1)
    ((_, labels),) = source.batches(64, 40)
    assert labels.shape == (40, 1)
    with pytest.raises(DataError, match="numbers are for task regression"):
        open_source(model="resnet8", **options)


def test_a_file_resizes_images_to_what_it_wants(tmp_path, data_dir):
    path = file(tmp_path, (12, 12, 1))
    source = open_source(model=path, dataset="digits", data_dir=data_dir, pixels="unit")
    ((images, _),) = source.batches(500, 500)
    assert images.shape == (360, 12, 12, 1)
    assert 0 <= np.min(images) < 0.01 and 0.9 < np.max(images) <= 1


@pytest.mark.parametrize("backbone", ["resnet8", "keras:MobileNet"])
def test_a_backbone_by_name_reads_what_it_reads_in_training(data_dir, short_config, backbone):
    options = {"dataset": "digits", "data_dir": data_dir, "seed": 3}
    if backbone.startswith("keras:"):
        with pytest.raises(
            UsageError, match="MobileNet's own preprocessing reads 3 channels, the images have 1"
        ):
            open_source(model=backbone, **options)
        options["pixels"] = "unit"
    source = open_source(model=backbone, head="fc8", image_size=32, **options)
    ((images, _),) = source.batches(4, 4)
    assert np.max(images) > 100, "the model scales them itself"
    trained = build_model(
        short_config(backbone=backbone, head="fc8", image_size=32, **options), source.dataset
    )
    np.testing.assert_array_equal(
        source.model.get_layer("scale_pixels")(images), trained.get_layer("scale_pixels")(images)
    )


def test_a_backbone_by_name_is_the_seeds(data_dir):
    source = open_source(model="resnet8", dataset="digits", data_dir=data_dir, head="fc8", seed=3)
    again = open_source(model="resnet8", dataset="digits", data_dir=data_dir, head="fc8", seed=3)
    np.testing.assert_array_equal(source.model.get_weights()[0], again.model.get_weights()[0])
    assert source.model.output.shape == (None, 10)


def test_a_model_larger_than_memory_is_one_line(tmp_path, data_dir):
    net = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4), layers.Dense(10)])
    net.save(tmp_path / "small.keras")
    with (
        zipfile.ZipFile(tmp_path / "small.keras") as small,
        zipfile.ZipFile(tmp_path / "huge.keras", "w") as huge,
    ):
        for name in small.namelist():
            huge.writestr(name, small.read(name).replace(b'"units": 4', b'"units": 281250000000'))
    with pytest.raises(ResourcesError, match=r"huge\.keras needs more memory than there is$"):
        open_source(model=str(tmp_path / "huge.keras"), dataset="digits", data_dir=data_dir)


def test_what_cannot_be_opened(tmp_path, data_dir):
    options = {"dataset": "digits", "data_dir": data_dir}
    with pytest.raises(RunDirectoryError, match="holds no finished run; give a run directory"):
        open_source(model=str(tmp_path), **options)
    with pytest.raises(
        UsageError, match=r"takes images of 12 x 12 x 3, and digits\S+ has images of 12 x 12 x 1"
    ):
        open_source(model=file(tmp_path, (12, 12, 3)), **options)
    (tmp_path / "broken.keras").write_text("no model")
    with pytest.raises(UsageError, match=r"broken\.keras cannot be loaded: "):
        open_source(model=str(tmp_path / "broken.keras"), **options)
    content = (tmp_path / "net.keras").read_bytes()
    for size in (10, len(content) // 2, len(content) - 30):
        (tmp_path / "broken.keras").write_bytes(content[:size] + b"x" * (len(content) - size))
        with pytest.raises(UsageError, match=r"broken\.keras cannot be loaded: ."):
            open_source(model=str(tmp_path / "broken.keras"), **options)
    vector = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    vector.save(tmp_path / "vector.keras")
    with pytest.raises(UsageError, match="must take one image"):
        open_source(model=str(tmp_path / "vector.keras"), **options)


def test_a_model_is_checked_before_the_data_is_opened(tmp_path, monkeypatch):
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(tmp_path / "vector.keras")
    monkeypatch.setattr("bnhead.training.reopen.load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(
        UsageError, match=r"must take one image.*; --data=FILE\.npz counts on arrays of any kind"
    ):
        open_source(model=str(tmp_path / "vector.keras"), dataset="digits")


def several_inputs(path):
    age, job = keras.Input((3,), name="age"), keras.Input((1,), name="job", dtype="int32")
    x = layers.Concatenate()([age, layers.Flatten()(layers.Embedding(5, 4)(job))])
    keras.Model([age, job], layers.Dense(2)(layers.Dense(6, "relu", name="fc")(x))).save(path / "table.keras")
    return str(path / "table.keras")


def test_arrays_for_several_inputs_and_labels(tmp_path):
    rng = np.random.default_rng(0)
    age, job, y = rng.normal(size=(20, 3)), rng.integers(0, 5, (20, 1)), rng.integers(0, 2, 20)
    np.savez(tmp_path / "held.npz", age=age, job=job, y=y, row=np.arange(20))
    model, arrays = several_inputs(tmp_path), str(tmp_path / "held.npz")
    source = open_source(model, arrays=arrays)
    x, labels = source.batches(8, 15)
    assert list(x) == ["age", "job"] and source.classes is None  # the model's output knows them
    np.testing.assert_array_equal(x["age"], age[:15])
    np.testing.assert_array_equal(labels, y[:15])
    assert source.pixels == "as in the file, (3,) float64 and (1,) int64"
    assert open_source(model, arrays=arrays, task="regression").classes == 0
    np.savez(tmp_path / "held.npz", age=age)
    with pytest.raises(UsageError, match=r"held\.npz has no array 'job', an input of the model"):
        open_source(model, arrays=arrays)


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_layers.py").write_text(
        "import keras\nclass Scale(keras.layers.Layer):\n    def call(self, x):\n        return 2.0 * x\n"
        "def double_relu(x):\n    return 2 * keras.ops.relu(x)\n"
    )
    (tmp_path / "users_broken.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("users_layers")
    sys.modules.pop("users_layers")


def test_custom_objects_are_imported(users_module, tmp_path):
    x = keras.Input((4,), name="x")
    scaled = layers.Dense(3, users_module.double_relu)(users_module.Scale()(x))
    keras.Model(x, scaled).save(tmp_path / "custom.keras")
    np.savez(tmp_path / "held.npz", x=np.ones((5, 4), "float32"))
    model, options = str(tmp_path / "custom.keras"), {"arrays": str(tmp_path / "held.npz")}
    for names in (["users_layers"], ["users_layers:Scale", "users_layers:double_relu"]):
        source = open_source(model, custom_objects=names, **options)
        assert isinstance(source.model.layers[1], users_module.Scale) and source.batches(1, 2)[1] is None
    assert set(reopen.imported(["users_layers"])) == {"Scale", "double_relu"}  # and not keras
    with pytest.raises(
        UsageError, match=r"'Scale' is not one of Keras'; --custom_objects=MODULE:Scale imports"
    ):
        open_source(model, **options)
    with pytest.raises(UsageError, match="function 'double_relu' is not one of Keras'"):
        open_source(model, custom_objects=["users_layers:Scale"], **options)
    for name, message in (
        ("users_layers:Scal", "module 'users_layers' has no 'Scal'; did you mean 'Scale'"),
        ("users_layer", "'users_layer' cannot be imported: ModuleNotFoundError: No module named"),
        ("users_broken", "'users_broken' cannot be imported: RuntimeError: not today"),
    ):
        with pytest.raises(UsageError, match=message):
            open_source(model, custom_objects=[name], **options)


def test_a_lambda_needs_trust(tmp_path):
    x = keras.Input((4,), name="x")
    keras.Model(x, layers.Lambda(lambda t: 3 * t)(x)).save(tmp_path / "lambda.keras")
    np.savez(tmp_path / "held.npz", x=np.ones((5, 4), "float32"))
    model, options = str(tmp_path / "lambda.keras"), {"arrays": str(tmp_path / "held.npz")}
    with pytest.raises(UsageError, match=r"a Lambda layer, .*; --nosafe_mode runs it, if you trust the file"):
        open_source(model, **options)
    trusted = open_source(model, safe_mode=False, **options).model
    assert np.asarray(trusted(np.ones((1, 4)))).tolist() == [[3, 3, 3, 3]]


def test_a_run_whose_settings_name_no_dataset(short_run, tmp_path, data_dir):
    config, _ = short_run
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").symlink_to(f"{config.workdir}/model.keras")
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"config\.json names no dataset; give --dataset"):
        open_source(model=str(tmp_path / "run"), data_dir=data_dir)
