"""The table of models, and what its rows share."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

INPUTS = 12
CASES: dict[str, "Case"] = {}


def on_zeros(model: keras.Model, x: Any) -> tuple[Any, Any]:
    """Compiles the model. Returns what `fit` is called with: the inputs, and targets of 0."""
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    outputs = keras.tree.flatten(model(x, training=False))
    targets = [np.zeros(tuple(output.shape), "float32") for output in outputs]
    return tuple(x) if isinstance(x, list) else x, targets if len(targets) > 1 else targets[0]


@dataclass(frozen=True)
class Case:
    """A model of the table.

    Attributes:
        build: makes the model, built, and its inputs.
        names: the sites that "all" must count, in order.
        missed: path -> a part of why an activation there is not looked at.
        unseen: positions among the recorded activations of those that are not counted, as listed.
        backends: where it can be run.
        trains: whether it can be trained by `fit`.
        evaluates: whether `evaluate` can compute its loss.
        rounds: whether TensorFlow's graph optimizer rewrites its arithmetic another way where values are read
            in between, so that a step that counts rounds differently.
        prepare: compiles the model and returns inputs and targets of `fit`.
        step: the sites in the order in which a training step runs them, if it is not that of `names`.
        masks: site -> `(rows, time)`, the positions that count.
        axes: site -> the axis of its units, where that is not the last.
        tolerance: relative, of magnitudes and runs; those of half precision depend on the order of rounding.
        part: attribute of the model that is counted on the inputs, if the model itself has no `call`.
    """

    build: Callable[[], tuple[keras.Model, Any]]
    names: list[str]
    missed: dict[str, str] = field(default_factory=dict)
    unseen: tuple[int, ...] = ()
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")
    trains: bool = True
    evaluates: bool = True
    rounds: bool = False
    prepare: Callable[[keras.Model, Any], tuple[Any, Any]] = on_zeros
    step: list[str] | None = None
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    tolerance: float = 2e-3
    part: str = ""


def case(*names: str, **options: Any) -> Callable:
    """Adds the decorated builder to the table, under its name."""

    def add(build):
        CASES[build.__name__] = Case(build, list(names), **options)
        return build

    return add


def vectors(units: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(INPUTS, units)).astype("float32")


def images(size: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((INPUTS, size, size, channels)).astype("float32")


def sequences(time: int = 5, units: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(INPUTS, time, units)).astype("float32")


def tokens() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(1, 9, (INPUTS, 5)) * (np.arange(5) < rng.integers(1, 6, (INPUTS, 1)))


def on(x: np.ndarray, *stack: Any, dtype: str = "float32") -> tuple[keras.Model, np.ndarray]:
    """A functional model of one layer after the other, and a Dense output."""
    inputs = keras.Input(x.shape[1:], dtype=dtype)
    h = inputs
    for layer in stack:
        h = layer(h)
    h = layers.Flatten(name="flat")(h) if len(h.shape) > 2 else h
    return keras.Model(inputs, layers.Dense(3, name="out")(h)), x


def relu(units: int = 7, name: str = "fc", **options: Any) -> keras.Layer:
    return layers.Dense(units, "relu", name=name, **options)


def inner(name: str = "inner", units: int = 6) -> keras.Model:
    return keras.Sequential([keras.Input((6,)), relu(units, "a"), layers.ReLU(name="b")], name=name)


def called(model: keras.Model, x: Any) -> tuple[keras.Model, Any]:
    """A subclassed model, built by a call, and its inputs."""
    model(x)
    return model, x


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Builds the layers inside with this dtype policy."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
