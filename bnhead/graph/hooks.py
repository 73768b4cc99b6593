"""The hooks: where Keras and its backends compute activations, patched while any `taps.Taps` are open.

There is one process-wide patch; what is reported goes to the taps of the thread that runs it. Keras looks its
functions up when it calls them, so every activation passes through a few attributes of modules and classes.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras.src import backend

FUNCTION = "function"  # the kind of an activation function of the user's own
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "sigmoid", "tanh"),
    *("softplus", "softsign", "softmax", "log_softmax", "hard_sigmoid", "hard_silu", "hard_swish"),
    *("hard_tanh", "glu", "sparsemax", "squareplus", "log_sigmoid", "hard_shrink", "soft_shrink"),
    *("tanh_shrink", "threshold", "sparse_plus", "sparse_sigmoid"),
)
_LOOPS = (  # functions that run their argument where a tensor cannot come out of
    *((backend, name) for name in ("vectorized_map", "cond")),
    *(
        (backend.core, name)
        for name in ("cond", "while_loop", "scan", "map", "fori_loop", "associative_scan", "vectorized_map")
    ),
)
RECURRENT_LAYER = "a recurrent layer"
_RECURRENT = tuple((backend, name) for name in ("rnn", "lstm", "gru"))


class _Local(threading.local):
    taps: Any = None


_local = _Local()
_lock, _users, _undo = threading.RLock(), 0, []


def current() -> Any:
    """The `Taps` that this thread reports to; None without."""
    return _local.taps


@contextlib.contextmanager
def reporting_to(taps: Any) -> Iterator[Any]:
    """Reports what this thread runs to `taps`, or to nobody.

    The hooks are installed with the first that is open anywhere, and removed with the last.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _install()
    previous, _local.taps = _local.taps, taps
    try:
        with _operations(taps) if taps is not None else contextlib.nullcontext():
            yield taps
    finally:
        _local.taps = previous
        with _lock:
            _users -= 1
            if not _users:
                while _undo:
                    _undo.pop()()


def _install() -> None:
    for owner, name in _activation_functions():
        _patch(owner, name, functools.partial(_activation_hook, name))
    from keras.src.activations import activations

    for owner, kind in ((activations.ReLU, "relu"), (activations.Mish, "mish")):
        _patch(owner, "static_call", functools.partial(_static_hook, kind))
    _patch(keras.layers.PReLU, "call", functools.partial(_activation_hook, "prelu", first=1))
    for owner, name in _LOOPS:
        if hasattr(owner, name):
            _patch(owner, name, functools.partial(_loop_hook, f"ops.{name}"))
    for owner, name in _RECURRENT:
        _patch(owner, name, functools.partial(_loop_hook, RECURRENT_LAYER))
    for owner in (keras.Layer, keras.Operation):
        _patch(owner, "__call__", _call_hook)
        _patch(owner, "rematerialized_call", _rematerialized_hook)
    _patch(backend.numpy, "concatenate", _concatenate_hook)
    if keras.backend.backend() == "jax":
        from jax._src.custom_derivatives import custom_jvp

        _patch(custom_jvp, "__call__", _custom_jvp_hook)


def _activation_functions() -> list[tuple[Any, str]]:
    name = keras.backend.backend()
    places: list[tuple[Any, Sequence[str]]] = [(backend.nn, _FUNCTIONS), (backend.numpy, ("tanh",))]
    if name == "tensorflow":
        import tensorflow as tf

        places += [(tf.nn, _FUNCTIONS), (tf, ("sigmoid", "tanh"))]
    elif name == "jax":
        import jax

        places += [(jax.nn, _FUNCTIONS), (jax.numpy, ("tanh",))]
    else:
        import torch

        places += [(torch.nn.functional, _FUNCTIONS), (torch, ("relu", "tanh", "sigmoid", "softmax"))]
    return [(owner, each) for owner, names in places for each in names if hasattr(owner, each)]


def _patch(owner: Any, name: str, hook: Callable[[Callable], Callable]) -> None:
    old = vars(owner)[name] if isinstance(owner, type) else getattr(owner, name)
    new = hook(old.__func__ if isinstance(old, staticmethod) else old)
    setattr(owner, name, staticmethod(new) if isinstance(old, staticmethod) else new)
    _undo.append(functools.partial(setattr, owner, name, old))


def _activation_hook(kind: str, function: Callable, first: int = 0) -> Callable:
    @functools.wraps(function)
    def hooked(*args, **kwargs):
        taps = _local.taps
        return (
            function(*args, **kwargs)
            if taps is None
            else taps.activation(kind, function, args, kwargs, first)
        )

    hooked.bnhead_hook = True
    return hooked


def _static_hook(kind: str, function: Callable) -> Callable:
    """`ReLU.static_call` with a slope or a threshold is another activation than `relu`."""

    @functools.wraps(function)
    def hooked(x, negative_slope=0.0, max_value=None, threshold=0.0, **kwargs):
        taps = _local.taps
        if kind != "relu":
            return function(x) if taps is None else taps.activation(kind, function, (x,), {})
        named = {"negative_slope": negative_slope, "max_value": max_value, "threshold": threshold}
        if taps is None:
            return function(x, **named)
        plain = negative_slope == 0 and threshold == 0
        here = ("relu6" if max_value == 6 else "relu") if plain else "leaky_relu"
        if plain and max_value not in (None, 6):
            here = "clipped_relu"
        return taps.activation(here, function, (x,), named)

    return hooked


def _loop_hook(name: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def hooked(*args, **kwargs):
        if _local.taps is None:
            return function(*args, **kwargs)
        with _local.taps.loop(name):
            return function(*args, **kwargs)

    return hooked


def _call_hook(original: Callable) -> Callable:
    layers_own = original.__qualname__.startswith("Layer.")

    @functools.wraps(original)
    def hooked(self, *args, **kwargs):
        taps = _local.taps
        if taps is None:
            return original(self, *args, **kwargs)
        if not layers_own:
            _hook_attributes(self)
            if isinstance(self, keras.Layer):  # its `__call__`, which ends here, has been seen
                return original(self, *args, **kwargs)
        return taps.call(self, original, args, kwargs)

    return hooked


def _hook_attributes(operation: keras.Operation) -> None:
    """Hooks a user's own activation functions on a layer, until the last taps are closed."""
    for name, value in list(vars(operation).items()):
        if (
            "activation" not in name
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
                vars(operation)[name] = _activation_hook(FUNCTION, value)
                _undo.append(functools.partial(vars(operation).__setitem__, name, value))


def _rematerialized_hook(original: Callable) -> Callable:
    @functools.wraps(original)
    def hooked(self, function, *args, **kwargs):
        if _local.taps is not None and _local.taps.evaluating:
            return function
        return original(self, function, *args, **kwargs)

    return hooked


def _concatenate_hook(original: Callable) -> Callable:
    @functools.wraps(original)
    def hooked(xs, axis=0):
        result = original(xs, axis=axis)
        if _local.taps is not None and isinstance(xs, list | tuple):
            _local.taps.concatenated(xs, axis, result)
        return result

    return hooked


def _custom_jvp_hook(original: Callable) -> Callable:
    """JAX: activations that were imported by value."""

    def hooked(self, *args, **kwargs):
        kind = getattr(self.fun, "__name__", "")
        if _local.taps is None or kind not in _FUNCTIONS:
            return original(self, *args, **kwargs)
        return _local.taps.activation(kind, functools.partial(original, self), args, kwargs)

    return hooked


_TF_OPERATIONS = {
    **{"Relu": "relu", "Relu6": "relu6", "Elu": "elu", "Selu": "selu", "LeakyRelu": "leaky_relu"},
    **{"Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign"},
    **{"Softmax": "softmax", "LogSoftmax": "log_softmax"},
}


@contextlib.contextmanager
def _operations(taps: Any) -> Iterator[None]:
    """TensorFlow: activations that were imported by value, seen as the operations they make."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    def seen(op_type, inputs, attrs, outputs, op_name=None, graph=None):
        kind = _TF_OPERATIONS.get(op_type.decode() if isinstance(op_type, bytes) else op_type)
        if kind is not None and _local.taps is taps:
            taps.by_value(kind, inputs[0], outputs[0], getattr(tf.nn, kind))
        return outputs  # what the next callback is given, as another counter's

    op_callbacks.add_op_callback(seen)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(seen)
