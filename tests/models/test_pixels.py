import keras
import numpy as np
import pytest
from keras import layers

from bnhead import models
from bnhead.errors import UsageError
from bnhead.models.pixels import decide_scaling, scales_itself


@pytest.mark.parametrize(
    ("pixels", "scaled"),
    [("auto", [-1, 0, 1]), ("signed", [-1, 0, 1]), ("unit", [0, 0.5, 1]), ("raw", [0, 127.5, 255])],
)
def test_the_input_of_our_nets(pixels, scaled):
    layer, _ = decide_scaling("resnet20", 1, pixels)
    x = np.array([[0.0, 127.5, 255.0]])
    np.testing.assert_allclose(x if layer is None else layer(x), [scaled], atol=1e-6)


@pytest.mark.parametrize(("backbone", "weights"), [("keras:VGG16", ""), ("resnet50_v1", "imagenet")])
def test_nets_of_keras_applications_get_their_own_preprocessing(backbone, weights):
    black = np.zeros((1, 1, 1, 3), "float32")
    expected = keras.applications.vgg16.preprocess_input(black.copy())  # ResNet50's is the same
    layer, reason = decide_scaling(backbone, 3, weights=weights)
    np.testing.assert_allclose(layer(black), expected, rtol=1e-5)
    assert reason.startswith("keras.applications' own preprocessing of ")


def test_their_preprocessing_is_for_colour():
    with pytest.raises(UsageError, match="VGG16's own preprocessing reads 3 channels, the images have 1"):
        decide_scaling("keras:VGG16", 1)
    with pytest.raises(UsageError, match=r"'keras:VGG15' is not known; did you mean 'VGG1[69]'"):
        decide_scaling("keras:VGG15", 3)
    assert decide_scaling("keras:VGG16", 1, "unit")[0].scale == 1 / 255


def saved(path, *first):
    net = keras.Sequential(
        [keras.Input((8, 8, 3)), *first, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    )
    net.save(path)
    return str(path)


@pytest.mark.parametrize(
    "first",
    [
        lambda: layers.Rescaling(1 / 255),
        lambda: layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 1, 1]),
        lambda: layers.Conv2D(3, 1, name="scale_pixels"),
        lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255)]),
    ],
)
def test_a_file_whose_net_scales_pixels_itself_gets_raw_ones(tmp_path, first):
    path = saved(tmp_path / "net.keras", first())
    assert scales_itself(path) and decide_scaling(path, 3) == (
        None,
        "as they are, 0 to 255, since the file's net scales them itself",
    )
    assert decide_scaling(path, 3, "signed")[0].offset == -1


def test_any_other_file_gets_the_scaling_of_our_nets(tmp_path):
    path = saved(tmp_path / "net.keras")
    assert not scales_itself(path) and decide_scaling(path, 3)[1] == "scaled to -1 to 1"
    (tmp_path / "junk.keras").write_text("no model")
    assert not scales_itself(str(tmp_path / "junk.keras"))


def test_a_second_scaling_of_the_same_name_is_refused_in_one_line(tmp_path):
    path = saved(tmp_path / "net.keras", layers.Conv2D(3, 1, name="scale_pixels"))
    layer, _ = decide_scaling(path, 3, "signed")
    with pytest.raises(
        UsageError, match="scales pixels itself, in its layer 'scale_pixels'; use --pixels=raw"
    ):
        models.build(path, (8, 8, 3), "fc8", 5, preprocessing=layer)
