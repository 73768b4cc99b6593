import dataclasses

import pytest

from bnhead.report.inspected import INITIAL, Inspected, file_name

pytestmark = pytest.mark.quick

RUN = Inspected("runs/a/seed0", "resnet20", "bn_fc", "run", None, "0123456789abcdef", "digits")
FILE = Inspected("nets/mine.keras", "mine", "", "file", None, "0123456789abcdef", "folder:/data/cats")
NAMED = Inspected("keras:ResNet50", "keras:ResNet50", "out", INITIAL, 3, "", "cifar10")


@pytest.mark.parametrize(
    ("inspected", "origin", "source"),
    [
        (RUN, "trained weights of a run", "trained, of the run runs/a/seed0"),
        (FILE, "weights of a file", "of the file nets/mine.keras"),
        (NAMED, "initial weights, seed 3", "initial, seed 3; nothing was trained"),
        (
            dataclasses.replace(NAMED, weights="imagenet"),
            "imagenet weights, initial head",
            "imagenet, of keras.applications; those of the head are initial, seed 3",
        ),
        (
            dataclasses.replace(NAMED, model="hub:vit", weights="preset"),
            "pre-trained weights, initial head",
            "pre-trained, of the preset vit; those of the head are initial, seed 3",
        ),
        (
            dataclasses.replace(NAMED, weights="w/net.weights.h5"),
            "weights of a file, initial head",
            "of w/net.weights.h5; those of the head are initial, seed 3",
        ),
    ],
)
def test_whose_weights_they_are(inspected, origin, source):
    assert inspected.origin == origin and inspected.source == source


def test_titles_name_net_head_and_data():
    assert RUN.title == "resnet20 with head bn_fc on digits"
    assert FILE.title == "mine on folder:/data/cats"


def test_every_inspection_has_its_directory():
    variants = [
        *(dataclasses.replace(NAMED, **{name: value}) for name, value in [
            ("net", "keras:ResNet101"), ("head", "bn_fc"), ("weights", "imagenet"), ("seed", 4),
            ("dataset", "cifar100"), ("weights_sha256", "fedcba98"),
        ]),
        NAMED, FILE, dataclasses.replace(FILE, weights_sha256="fedcba98"),
    ]  # fmt: skip
    directories = [str(one.directory) for one in variants]
    assert len(set(directories)) == len(variants)
    assert str(NAMED.directory) == "census/cifar10-keras-ResNet50-out-seed3"
    assert str(FILE.directory) == "census/folder-data-cats-mine-01234567"
    imagenet = dataclasses.replace(NAMED, weights="imagenet")
    assert str(imagenet.directory) == "census/cifar10-keras-ResNet50-out-imagenet-seed3"


def test_the_same_file_may_have_another_path():
    moved = dataclasses.replace(RUN, model="/elsewhere/runs/a/seed0")
    assert moved.is_same(dataclasses.asdict(RUN))
    trained_again = dataclasses.replace(RUN, weights_sha256="other")
    assert not trained_again.is_same(dataclasses.asdict(RUN))
    assert NAMED.is_same(dataclasses.asdict(NAMED))
    for name, value in (
        ("model", "keras:ResNet101"),
        ("seed", 4),
        ("dataset", "cifar100"),
        ("pixels", "raw"),
    ):
        assert not dataclasses.replace(NAMED, **{name: value}).is_same(dataclasses.asdict(NAMED)), name
    assert not NAMED.is_same({})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("folder:/data/cats", "folder-data-cats"),
        ("../x", "x"),
        ("a b/c:d", "a-b-c-d"),
        ("bn-beta_fc", "bn-beta_fc"),
    ],
)
def test_names_of_files_lead_nowhere_else(text, name):
    assert file_name(text) == name
