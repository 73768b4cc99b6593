"""Small nets and data for the rules."""

import keras
import numpy as np
from keras import layers

from bnhead.lint.linter import check

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 16)).astype("float32")
CLASSES = np.arange(600) % 4


def sequential(*parts, inputs=(16,), outputs=4):
    """The layers and an output layer; `outputs` 0 leaves it out."""
    last = [layers.Dense(outputs, name="out")] if outputs else []
    return keras.Sequential([keras.Input(inputs), *parts, *last])


def norm(**options):
    options = {"momentum": 0.9, "epsilon": 1e-5, "name": "bn", **options}
    return layers.BatchNormalization(**options)


def findings(model, rule, data=(X, CLASSES), batch_size=60, **options):
    """The findings of one rule."""
    return check(model, data, batch_size, select=[rule], **options).items


def the_finding(*arguments, severity="warning", **options):
    """The only finding of a rule, of this severity."""
    (only,) = findings(*arguments, **options)
    assert only.severity == severity
    return only
