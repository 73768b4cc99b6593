"""Tracing a model's forward pass in evaluation mode, without changing the model."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from bnhead.errors import UsageError
from bnhead.graph import audit, taps
from bnhead.graph.calls import functional, require_keras


def specs(model: keras.Model) -> Any:
    """The inputs of a built functional or Sequential model as abstract tensors; None for other models."""
    graph = functional(model)
    if graph is None or not getattr(graph, "inputs", None):
        return None
    return abstract(graph._inputs_struct)


def abstract(like: Any) -> Any:
    """Abstract tensors with the structure, shapes and dtypes of `like`; None if they cannot be made.

    JAX and PyTorch need every size. An unknown batch size becomes 2, any other unknown size gives None.
    """
    flat = [(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in keras.tree.flatten(like)]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.TensorSpec(shape, dtype) for shape, dtype in flat]
        return keras.tree.pack_sequence_as(like, tensors)
    if any(None in shape[1:] for shape, _ in flat):
        return None
    flat = [((shape[0] or 2, *shape[1:]) if shape else shape, dtype) for shape, dtype in flat]
    if keras.backend.backend() == "jax":
        import jax

        # JAX truncates 64-bit types by default, and a request for one warns
        tensors = [jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype)) for shape, dtype in flat]
    else:
        tensors = [keras.ops.zeros(shape, dtype) for shape, dtype in flat]
    return keras.tree.pack_sequence_as(like, tensors)


def forward(model: keras.Model, inputs: Any) -> taps.Pass:
    """The pass of a model on abstract or real inputs. Its tensors cannot be read after the trace.

    Raises:
        UsageError: a layer has a name that TensorFlow cannot trace.
    """
    traces: list[taps.Taps] = []

    def run(x):
        with keras.StatelessScope(), taps.opened(model, evaluating=True, marked=True) as opened:
            outputs = model(x, training=False)
        traces.append(opened)
        return keras.tree.flatten(outputs)

    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        _require_scopes(model)
        program = tf.function(run, autograph=False).get_concrete_function(inputs).graph
        missed = audit.of_graph(program, traces[-1])
    elif name == "jax":
        import jax

        program = jax.make_jaxpr(run)(inputs)
        missed = audit.of_jaxpr(program, traces[-1])
    else:
        import torch

        with torch.no_grad():
            run(inputs)
        missed = {}
    traced = traces[-1].passes[0]
    for path, reason in missed.items():
        traced.missed.setdefault(path, reason)
    return traced


def synchronize_variables(model: keras.Model) -> None:
    """Copies the values that Keras' trainer on JAX holds during `fit` back into the variables."""
    if hasattr(model, "jax_state_sync") and getattr(model, "_jax_state", None):
        model.jax_state_sync()


def separate(function: Callable) -> Callable:
    """The function as an object for which TensorFlow counts tracings apart.

    It counts them by code, and warns after the fifth model that the same lines are traced again and again.
    """
    return functools.partial(function)


def compiled(function: Callable, model: keras.Model) -> Callable:
    """`function(*arguments)`, compiled except on PyTorch, with the model's current weights in every call.

    The function may assign to variables; the assignments are discarded.

    Raises:
        UsageError: a layer has a name that TensorFlow cannot trace.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        _require_scopes(model)

        def stateless(*arguments):
            with keras.StatelessScope():
                return function(*arguments)

        # relaxed shapes, or every smaller last batch would be traced again
        # without autograph, as Keras calls models; it would take half of the time of the first call
        return tf.function(separate(stateless), reduce_retracing=True, autograph=False)
    if name == "jax":
        import jax

        variables = [*model.trainable_variables, *model.non_trainable_variables]

        @jax.jit  # values as arguments, or they would be constants of the compiled program
        def of_values(values, *arguments):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return function(*arguments)

        def run(*arguments):
            synchronize_variables(model)
            return of_values([v.value for v in variables], *arguments)

        return run
    import torch

    def without_gradients(*arguments):
        with torch.no_grad(), keras.StatelessScope():
            return function(*arguments)

    return without_gradients


def _require_scopes(model: keras.Model) -> None:
    """Raises UsageError for a layer's name that TensorFlow refuses.

    Checked before tracing, since Keras leaves name scopes open after an error in one.
    """
    import tensorflow as tf

    with tf.Graph().as_default(), tf.name_scope("model"):
        for layer in model._flatten_layers():
            try:
                with tf.name_scope(layer.name):
                    pass
            except ValueError:
                raise UsageError(
                    f"layer {layer.name!r} of model {model.name!r} has a name that TensorFlow cannot trace; "
                    "letters from a to z, digits and the signs _ . - > can be in it"
                ) from None


def require_built(model: Any) -> None:
    """Raises UsageError unless `model` is a built Keras model."""
    require_keras(model)
    if not model.built:
        raise UsageError(f"model {model.name!r} must be built: call it on a batch of inputs first")
