"""A user's compiled models: built from a seed, and identified by architecture rather than by name."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from bnhead.comparison.data import ComparedData
from bnhead.errors import UsageError
from bnhead.seeds import stream

Builder = Callable[[int], keras.Model]  # of the seed


def built_model(name: str, builder: Builder, seed: int, data: ComparedData) -> keras.Model:
    """The model of a builder, with all its weights.

    Args:
        name: of the head, for messages.
        builder: is called after Keras' random seed is set.
        seed: of the run.
        data: a subclassed model is called on its first test inputs, since it has no weights before.

    Raises:
        UsageError: the builder returns something else than a compiled model.
    """
    set_seed(seed, "build")
    model = builder(seed)
    if not isinstance(model, keras.Model) or not model.compiled:
        text = "a model that is not compiled" if isinstance(model, keras.Model) else type(model).__name__
        raise UsageError(f"build must return a compiled keras.Model; for {name!r} it returned {text}")
    if getattr(model, "inputs", None) is None:
        model.predict(data.tested(0, 2), verbose=0)
    return model


def set_seed(seed: int, purpose: str) -> None:
    """Seeds Keras, NumPy and Python for one purpose of a run."""
    keras.utils.set_random_seed(stream(seed, purpose))
    random.seed(stream(seed, purpose))


def model_sha256(model: keras.Model) -> str:
    """The hash of a model's architecture and of its compilation.

    Layers' names and random seeds do not count: Keras numbers unnamed layers on from model to model, and the
    initial weights of two seeds differ.
    """
    names = {layer.name: f"layer{n}" for n, layer in enumerate(model._flatten_layers())}

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            numbered = value.get("name")
            if isinstance(numbered, str) and numbered not in names:  # of an optimizer: adam_3
                value = {**value, "name": re.sub(r"_\d+$", "", numbered)}
            return {names.get(key, str(key)): plain(item) for key, item in value.items() if key != "seed"}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float):
            return value
        return names.get(value, value) if isinstance(value, str) else type(value).__name__

    try:
        config = {"model": model.get_config(), "compiled": model.get_compile_config()}
    except (NotImplementedError, TypeError, ValueError):  # a subclassed model need not have a config
        config = {"model": type(model).__name__}
    content = plain(config), [list(weight.shape) for weight in model.weights]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def unnumbered(layer: str) -> str:
    """A layer's name without the number that Keras gives unnamed ones, which goes on from model to model."""
    return re.sub(r"_\d+(?=[/#]|$)", "", layer)
