import keras
import numpy as np
import pytest

from bnhead import models
from bnhead.errors import UsageError
from bnhead.models.imagenet import resnet
from bnhead.models.weights import TWINS


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(
    ("name", "published"),
    [  # torchvision's documentation
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        pytest.param("resnet101", 44_549_160, marks=pytest.mark.slow),
        pytest.param("resnet152", 60_192_808, marks=pytest.mark.slow),
    ],
)
def test_v1_5_has_torchvisions_parameters(name, published):
    model = models.find(name)((224, 224, 3), "out", 1000)
    assert model.name == name and trainable(model) == published


@pytest.mark.parametrize("name", [n if "50" in n else pytest.param(n, marks=pytest.mark.slow) for n in TWINS])
def test_v1_and_v2_have_the_parameters_of_keras_applications(name):
    application = getattr(keras.applications, TWINS[name])(weights=None)
    model = models.find(name)((224, 224, 3), "out", 1000)
    assert model.name == name
    assert model.count_params() == application.count_params()
    assert trainable(model) == trainable(application)


def test_resnet50_has_the_published_25636712_parameters():
    assert models.find("resnet50_v1")((224, 224, 3), "out", 1000).count_params() == 25_636_712


def strides(model, block):
    return [model.get_layer(f"{block}_conv{i}").strides[0] for i in (1, 2, 3)]


def test_where_the_stride_lies():
    find = models.find
    assert strides(find("resnet50")((64, 64, 3)), "stage2_block1") == [1, 2, 1]
    assert strides(find("resnet50_v1")((64, 64, 3)), "stage2_block1") == [2, 1, 1]
    assert strides(find("resnet50_v2")((64, 64, 3)), "stage1_block3") == [1, 2, 1]
    assert strides(find("resnet50_v2")((64, 64, 3)), "stage4_block3") == [1, 1, 1]


@pytest.mark.parametrize("name", ["resnet18", "resnet34_v2", "resnet50", "resnet50_v1", "resnet50_v2"])
@pytest.mark.parametrize("size", [32, 64, 75])
def test_feature_map(name, size):
    channels = 512 if name.startswith(("resnet18", "resnet34")) else 2048
    assert models.find(name)((size, size, 3)).output.shape == (None, -(-size // 32), -(-size // 32), channels)


def test_invalid_arguments():
    with pytest.raises(UsageError, match="depth must be one of 18, 34, 50, 101, 152, got 20"):
        resnet(20, "v1", (64, 64, 3))
    with pytest.raises(UsageError, match=r"version must be one of v1, v1\.5, v2, got 'v3'"):
        resnet(18, "v3", (64, 64, 3))
    with pytest.raises(UsageError, match="at least 32 x 32"):
        resnet(18, "v1", (31, 64, 3))
