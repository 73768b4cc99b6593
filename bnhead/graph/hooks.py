"""The functions of Keras and its backends that compute activations, patched while any `taps.Taps` are open.

The patch is one per process; each thread reports to its own taps. Keras looks its functions up when it calls
them, so every activation passes through a few attributes of modules and classes.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src import backend
from keras.src.activations import activations

FUNCTION = "function"  # name of a user's activation function in `Tap.kind`
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "sigmoid", "tanh"),
    *("softplus", "softsign", "softmax", "log_softmax", "hard_sigmoid", "hard_silu", "hard_swish"),
    *("hard_tanh", "glu", "sparsemax", "squareplus", "log_sigmoid", "hard_shrink", "soft_shrink"),
    *("tanh_shrink", "threshold", "sparse_plus", "sparse_sigmoid"),
)
# functions that run their argument in another trace: its tensors cannot be read from outside
_CONTROL_FLOW = (
    *((backend, name) for name in ("vectorized_map", "cond")),
    *(
        (backend.core, name)
        for name in ("cond", "while_loop", "scan", "map", "fori_loop", "associative_scan", "vectorized_map")
    ),
)
RECURRENT_LAYER = "a recurrent layer"
_ACTIVATION_NAME = re.compile("activation|nonlinearity|(^|_)act(_|$)")  # of an attribute: `self.act = ...`


class _Local(threading.local):
    taps: Any = None


_local = _Local()
_lock, _users, _undo = threading.RLock(), 0, []


def current() -> Any:
    """The `Taps` that this thread reports to, or None."""
    return _local.taps


@contextlib.contextmanager
def reporting_to(taps: Any) -> Iterator[Any]:
    """Reports the activations of this thread to `taps`; None reports them to nobody.

    The first context of the process installs the hooks, the last one removes them.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _install()
    previous, _local.taps = _local.taps, taps
    try:
        with _observing_operations(taps):
            yield taps
    finally:
        _local.taps = previous
        with _lock:
            _users -= 1
            if not _users:
                while _undo:  # in reverse order, since an attribute may be patched twice
                    _undo.pop()()


def _install() -> None:
    modules = [(backend.nn, _FUNCTIONS), (backend.numpy, ("tanh",))]
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        modules += [(tf.nn, _FUNCTIONS), (tf, ("sigmoid", "tanh"))]
    elif name == "jax":
        import jax
        from jax._src.custom_derivatives import custom_jvp

        modules += [(jax.nn, _FUNCTIONS), (jax.numpy, ("tanh",))]
        _patch(custom_jvp, "__call__", custom_jvp_call)
    else:
        import torch

        modules += [(torch.nn.functional, _FUNCTIONS), (torch, ("relu", "tanh", "sigmoid", "softmax"))]
    for module, names in modules:
        for name in names:
            if hasattr(module, name):  # not every backend has every function
                _patch(module, name, functools.partial(_activation, name, 0))
    _patch(activations.ReLU, "static_call", relu_call)
    _patch(activations.Mish, "static_call", functools.partial(_activation, "mish", 0))
    _patch(keras.layers.PReLU, "call", functools.partial(_activation, "prelu", 1))
    for module, name in _CONTROL_FLOW:
        if hasattr(module, name):
            _patch(module, name, functools.partial(_loop, f"ops.{name}"))
    for name in ("rnn", "lstm", "gru"):
        _patch(backend, name, functools.partial(_loop, RECURRENT_LAYER))
    _patch(keras.Layer, "__call__", layer_call)
    _patch(keras.Operation, "__call__", operation_call)
    for cls in (keras.Layer, keras.Operation):
        _patch(cls, "rematerialized_call", rematerialized_call)
    _patch(backend.numpy, "concatenate", concatenate)


def _patch(owner: Any, name: str, hook: Callable) -> None:
    """Replaces a function of a module or class by `hook(taps, function, ...)`.

    Raises:
        AttributeError, KeyError: this version of Keras has no such function. Activations would be missed
            without a sign.
    """
    original = vars(owner)[name] if isinstance(owner, type) else getattr(owner, name)
    is_static = isinstance(original, staticmethod)
    patched = _hooked(original.__func__ if is_static else original, hook)
    setattr(owner, name, staticmethod(patched) if is_static else patched)
    _undo.append(functools.partial(setattr, owner, name, original))


def _hooked(function: Callable, hook: Callable) -> Callable:
    """`function`, replaced by `hook(taps, function, ...)` in threads that report to taps."""

    @functools.wraps(function)
    def hooked(*args, **kwargs):
        taps = _local.taps
        return function(*args, **kwargs) if taps is None else hook(taps, function, *args, **kwargs)

    hooked.bnhead_hook = True
    return hooked


# The hooks. Their parameters are positional: the keywords of the hooked functions may have any name.


def _activation(name: str, position: int, taps: Any, function: Callable, /, *args, **kwargs) -> Any:
    return taps.activation(name, function, args, kwargs, position)


def relu_call(
    taps: Any, function: Callable, /, x: Any, negative_slope=0.0, max_value=None, threshold=0.0
) -> Any:
    """`ReLU.static_call`: with a slope, a threshold or another maximum than 6 it is not `relu`."""
    name = "relu" if max_value is None else "relu6" if max_value == 6 else "clipped_relu"
    if negative_slope != 0 or threshold != 0:
        name = "leaky_relu"
    options = {"negative_slope": negative_slope, "max_value": max_value, "threshold": threshold}
    return taps.activation(name, function, (x,), options)


def custom_jvp_call(taps: Any, function: Callable, self: Any, /, *args, **kwargs) -> Any:
    """JAX: activations that a user imported by name, `from jax.nn import relu`."""
    name = getattr(self.fun, "__name__", "")
    if name not in _FUNCTIONS:
        return function(self, *args, **kwargs)
    return taps.activation(name, functools.partial(function, self), args, kwargs)


def _loop(name: str, taps: Any, function: Callable, /, *args, **kwargs) -> Any:
    with taps.loop(name):
        return function(*args, **kwargs)


def layer_call(taps: Any, function: Callable, layer: keras.Layer, /, *args, **kwargs) -> Any:
    """`Layer.__call__`."""
    return taps.call(layer, function, args, kwargs)


def operation_call(taps: Any, function: Callable, operation: keras.Operation, /, *args, **kwargs) -> Any:
    """`Operation.__call__`, which `Layer.__call__` ends in."""
    _hook_attributes(operation)
    if isinstance(operation, keras.Layer):
        return function(operation, *args, **kwargs)
    return taps.call(operation, function, args, kwargs)


def rematerialized_call(
    taps: Any, function: Callable, operation: keras.Operation, layer_function: Callable, /, *args, **kwargs
) -> Any:
    """Evaluation runs a rematerialised layer directly: tensors cannot be read from inside its checkpoint."""
    return layer_function if taps.evaluating else function(operation, layer_function, *args, **kwargs)


def concatenate(taps: Any, function: Callable, /, xs: Any, axis: int = 0) -> Any:
    """Reports the groups of channels."""
    result = function(xs, axis=axis)
    if isinstance(xs, list | tuple):
        taps.concatenated(xs, axis, result)
    return result


def _hook_attributes(operation: keras.Operation) -> None:
    """Hooks a user's activation functions, such as `layer.activation`, until the last taps are closed.

    Keras' activations end in hooked functions of the backend and are skipped. `exponential` is not skipped:
    it ends in `exp`, which is not hooked, since it is not only an activation.
    """
    for name, value in list(vars(operation).items()):
        if (
            not _ACTIVATION_NAME.search(name)
            or not callable(value)
            or isinstance(value, keras.Operation | type)
            or hasattr(value, "bnhead_hook")
            or value is keras.activations.linear
            or (
                str(getattr(value, "__module__", "")).startswith("keras.")
                and value is not keras.activations.exponential
            )
            or getattr(value, "__name__", "") == "identity"
        ):
            continue
        with _lock:
            if vars(operation).get(name) is value:
                # not setattr, which would make Keras track the value
                vars(operation)[name] = _hooked(value, functools.partial(_activation, FUNCTION, 0))
                _undo.append(functools.partial(vars(operation).__setitem__, name, value))


_TF_OPERATIONS = {
    **{"Relu": "relu", "Relu6": "relu6", "Elu": "elu", "Selu": "selu", "LeakyRelu": "leaky_relu"},
    **{"Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign"},
    **{"Softmax": "softmax", "LogSoftmax": "log_softmax"},
}


@contextlib.contextmanager
def _observing_operations(taps: Any) -> Iterator[None]:
    """TensorFlow: reports activations that a user imported by name, by the operations that they create."""
    if taps is None or keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    def report(op_type, inputs, attrs, outputs, op_name=None, graph=None):
        name = _TF_OPERATIONS.get(op_type.decode() if isinstance(op_type, bytes) else op_type)
        if name is not None and _local.taps is taps:
            taps.record_operation(name, inputs[0], outputs[0], getattr(tf.nn, name))
        return outputs  # the input of the next callback, as of nested taps

    op_callbacks.add_op_callback(report)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(report)
