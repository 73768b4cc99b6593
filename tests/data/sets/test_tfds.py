import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bnhead.data.sets.tfds import check_feature_files, check_task, image_and_label, prepared_builder
from bnhead.errors import DataError
from tests.data.small_sets import write_set

IMAGE = tfds.features.Image(shape=(4, 4, 1))
LABEL = tfds.features.ClassLabel(num_classes=2)
FIRST = [{"python_class_name": "evil.X"}, {"type": "evil.X", "content": "{}"}]


@pytest.fixture
def own(tmp_path):
    """A set of two images; its directory."""
    write_set(tmp_path, "own", IMAGE, LABEL, [(np.zeros((4, 4, 1), np.uint8), i) for i in (0, 1)])
    return tmp_path


def change(own, name, edit):
    path = own / "own" / "1.0.0" / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps(edit(content)))


def one_line(own, name="own"):
    with pytest.raises(DataError) as caught:
        builder = prepared_builder(name, str(own))
        image_and_label(name, builder.info)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that must not be imported."""
    (tmp_path / "evil.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    assert sys.modules.pop("evil", None) is None


def inner(content):
    content["featuresDict"]["features"]["label"]["pythonClassName"] = "evil.X"
    return content


def legacy(content):
    return {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "content": {"x": FIRST}}


@pytest.mark.parametrize("edit", [inner, legacy, *(lambda _, one=one: one for one in FIRST)])
def test_a_strangers_features_import_no_module(own, evil, edit):
    assert prepared_builder("own", str(own)).name == "own"
    change(own, "features.json", edit)
    for name in ("own", "own:1.0.0"):
        message = one_line(own, name)
        assert "features.json names 'evil.X', which is not a feature of TFDS" in message


def test_a_link_does_not_hide_a_strangers_features(own, evil, tmp_path):
    change(own, "features.json", inner)
    (own / "own/1.0.0").rename(tmp_path / "elsewhere")
    (own / "own/1.0.0").symlink_to(tmp_path / "elsewhere")
    for name in ("own", "Own"):  # TFDS takes either
        assert "features.json names 'evil.X'" in one_line(own, name)


def test_names_of_features_are_no_classes(tmp_path):
    image, label = (tfds.features.FeaturesDict({"type": one}) for one in (IMAGE, LABEL))
    write_set(tmp_path, "own", image, label, [({"type": np.zeros((4, 4, 1), np.uint8)}, {"type": 0})])
    check_feature_files("own", str(tmp_path))


def renamed(content):
    content["supervisedKeys"]["tuple"]["items"][0]["featureKey"] = "picture"
    return content


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            "dataset_info.json",
            lambda content: {k: v for k, v in content.items() if k != "supervisedKeys"},
            "nothing",
        ),
        ("dataset_info.json", renamed, "has no images with labels: it is read as ('picture', 'label')"),
        ("dataset_info.json", lambda content: [], "data set 'own' cannot be opened: "),
        (
            "dataset_info.json",
            lambda content: {**content, "fileFormat": "x"},
            "data set 'own' cannot be opened: ",
        ),
        (
            "features.json",
            lambda content: [],
            "data set 'own' cannot be opened: it does not hold a JSON object",
        ),
        ("features.json", lambda content: {}, "data set 'own' cannot be opened: "),
    ],
)
def test_files_of_other_content(own, name, edit, message):
    change(own, name, edit)
    assert message in one_line(own)


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "\0"])
def test_files_that_are_no_json(own, content):
    (own / "own/1.0.0/features.json").write_text(content)
    assert "data set 'own' cannot be opened: " in one_line(own)


def test_files_that_may_not_be_read(own, monkeypatch):
    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tfds, "builder", closed)
    assert "data set 'own' cannot be opened: [Errno 13] Permission denied" in one_line(own)


@pytest.mark.parametrize(
    ("label", "task", "message"),
    [
        (LABEL, "regression", "x has 2 classes as labels, but task regression needs numbers"),
        (
            tfds.features.Tensor(shape=(3,), dtype=np.int64),
            "multilabel",
            "a Tensor of shape .3,. and dtype int64 as labels",
        ),
        (
            tfds.features.Tensor(shape=(3,), dtype=np.int64),
            "multilabel",
            "multilabel needs one class for each image",
        ),
        (tfds.features.Sequence(LABEL), "multilabel", "task multilabel needs one class for each image"),
        (tfds.features.Scalar(np.int64), "classification", "numbers are for task regression"),
        (tfds.features.Text(), "classification", "not a classification set, its labels are a Text"),
    ],
)
def test_labels_of_another_task(label, task, message):
    with pytest.raises(DataError, match=message):
        check_task("x", label, task)
    check_task("x", LABEL, "multilabel")
