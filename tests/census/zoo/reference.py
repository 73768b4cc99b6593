"""The reference: a hook on an eager forward pass or training step.

It records what activation layers, recurrent layers, functions of Keras' backend and users' functions return,
as arrays. It shares no code with `bnhead.graph.taps`.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import layers, ops
from keras.src import backend

_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "tanh", "sigmoid", "softplus"),
    *("softsign", "hard_sigmoid", "hard_silu", "hard_tanh", "log_sigmoid", "squareplus"),
)
_MODULES = {  # of functions that a user may call directly
    "tensorflow": {"tensorflow.nn": _FUNCTIONS, "tensorflow": ("tanh", "sigmoid")},
    "jax": {"jax.nn": _FUNCTIONS, "jax.numpy": ("tanh",)},
    "torch": {"torch.nn.functional": _FUNCTIONS, "torch": ("relu", "tanh", "sigmoid")},
}
_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU, layers.Activation)
_recorder: "Recorder | None" = None


def activation(function: Callable) -> Callable:
    """Decorates a user's activation function, which is recorded too."""

    @functools.wraps(function)
    def recorded(*arguments, **keywords):
        run = function if _recorder is None else _recorder.recording(function)
        return run(*arguments, **keywords)

    return recorded


class Recorder:
    """Records the outputs of activations inside layers; of nested ones, the outermost only."""

    def __init__(self):
        self.values: list[np.ndarray | None] = []
        self._depth = 0
        self._layers = 0

    def recording(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def recorded(*arguments, **keywords):
            self._depth += 1
            try:
                result = original(*arguments, **keywords)
            finally:
                self._depth -= 1
            output = keras.tree.flatten(result)[0]
            symbolic = isinstance(output, keras.KerasTensor)
            of_weights = bool(arguments) and isinstance(arguments[0], keras.Variable)
            if self._layers and not (self._depth or symbolic or of_weights):
                self.values.append(array(output))
            return result

        return recorded

    def call(self, original: Callable) -> Callable:
        def called(layer, *arguments, **keywords):
            run = functools.partial(original, layer)
            if isinstance(layer, (*_LAYERS, layers.RNN)):
                run = self.recording(run)
            if isinstance(layer, layers.TimeDistributed):
                run = functools.partial(self.steps, run)
            self._layers += 1
            try:
                return run(*arguments, **keywords)
            finally:
                self._layers -= 1

        return called

    def steps(self, run: Callable, *arguments, **keywords):
        """Puts what each step recorded side by side."""
        earlier, self.values = self.values, []
        result = run(*arguments, **keywords)
        number = arguments[0].shape[1]
        each = len(self.values) // number
        self.values = earlier + [np.stack(self.values[i::each], axis=1) for i in range(each)]
        return result


def array(tensor: Any) -> np.ndarray | None:
    """A tensor as float64; None where it is traced, so that there is no value."""
    with contextlib.suppress(Exception):
        dtype = "float64" if "64" in str(tensor.dtype) else "float32"
        return np.asarray(ops.convert_to_numpy(ops.cast(tensor, dtype))).astype("float64")
    return None


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Records the activations of the layers that run in the context."""
    global _recorder
    recorder = Recorder()
    owners = [(backend.nn, _FUNCTIONS), (backend.numpy, ("tanh",))]
    for module, names in _MODULES[keras.backend.backend()].items():
        owners.append((importlib.import_module(module), names))
    with contextlib.ExitStack() as stack:
        for owner, names in owners:
            for name in names:
                if hasattr(owner, name):
                    function = recorder.recording(getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, function))
        called = recorder.call(layers.Layer.__call__)
        stack.enter_context(mock.patch.object(layers.Layer, "__call__", called))
        _recorder = recorder
        try:
            yield recorder
        finally:
            _recorder = None


def recorded(model: keras.Model, x: Any) -> list[np.ndarray | None]:
    """What each activation of an eager pass returns, `(rows, ..., units)`; the model's state is put back."""
    state = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
    with recording() as recorder:
        model(x, training=False)
    for variable, value in zip(model.variables, state, strict=True):
        variable.assign(value)
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False):
            layer.reset_state()
    return recorder.values


def recorded_step(model: keras.Model, inputs: Any, y: Any, batch_size: int) -> list[np.ndarray | None]:
    """The same of the passes of one eager training step, on all inputs; not on JAX, which traces it."""
    model.run_eagerly = True
    with recording() as recorder:
        model.fit(inputs, y, batch_size=batch_size, shuffle=False, verbose=0)
    return recorder.values
