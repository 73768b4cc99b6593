"""Nets without a mistake: nothing above an info, except a number that passes its rule's threshold."""

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from bnhead.heads import PRESETS
from bnhead.lint.linter import check
from bnhead.models import resnet20
from bnhead.models.existing import pixel_preprocessing

IMAGES = load_digits().images.astype("float32")
CLASSES = load_digits().target
BEYOND = {"fastai": {"BN401"}, "arcface": {"BN401"}}  # dropout between two norms
FAST = ("fastai", "final_bn")
NETS = {  # net -> rules whose number is beyond the threshold with initial weights
    "DenseNet121": set(),
    "EfficientNetB0": {"BN401"},  # stochastic depth
    "InceptionV3": set(),
    "MobileNet": {"BN402"},  # epsilon 1e-3
    "MobileNetV2": {"BN402"},
    "MobileNetV3Small": {"BN402"},
    "NASNetMobile": {"BN201", "BN402"},  # momentum 0.9997
    "ResNet50": set(),
    "ResNet50V2": set(),
    "Xception": {"BN402"},
}


def beyond(findings):
    return {item.rule.id for item in findings.at_least("warning")}


@pytest.mark.parametrize(
    "head", [h if h in FAST else pytest.param(h, marks=pytest.mark.slow) for h in PRESETS]
)
def test_presets_on_resnet20(head):
    model = resnet20((8, 8, 1), head=head, outputs=10, seed=0)
    findings = check(model, (IMAGES[..., None] / 8 - 1, CLASSES), 128, epochs=20)
    assert beyond(findings) == BEYOND.get(head, set())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_nets_of_keras_applications(name):
    keras.utils.set_random_seed(0)
    images = np.repeat(np.repeat(IMAGES, 12, axis=1), 12, axis=2)[..., None].repeat(3, axis=-1) * 255 / 16
    net = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(96, 96, 3))
    model = keras.Sequential([layers.Input((96, 96, 3)), pixel_preprocessing(name), net])
    findings = check(model, (images, CLASSES), 32, epochs=90, examples=96)
    assert beyond(findings) == NETS[name]
