"""Tracing a model's forward pass, in evaluation mode and without a trace of it in the model."""

from collections.abc import Callable
from typing import Any

import keras

from bnhead.errors import UsageError
from bnhead.graph import audit, taps
from bnhead.graph.calls import functional, require_keras


def specs(model: keras.Model) -> Any:
    """The model's inputs as abstract tensors, in the structure it takes; None where they are not known.

    They are known of a functional or Sequential model that is built.
    """
    graph = functional(model)
    if graph is None or not getattr(graph, "inputs", None):
        return None
    return abstract(graph._inputs_struct)


def abstract(like: Any) -> Any:
    """Abstract tensors in the structure of `like`, of its shapes and dtypes; None where they do not do.

    JAX and PyTorch need every size. The batch's is 2 here; where another one is not known, the result is
    None.
    """
    flat = [(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in keras.tree.flatten(like)]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        made = [tf.TensorSpec(shape, dtype) for shape, dtype in flat]
        return keras.tree.pack_sequence_as(like, made)
    if any(None in shape[1:] for shape, _ in flat):
        return None
    flat = [((shape[0] or 2, *shape[1:]) if shape else shape, dtype) for shape, dtype in flat]
    if keras.backend.backend() == "jax":
        import jax

        # 64-bit numbers are 32-bit ones there, unless JAX was told otherwise, and asking for them warns
        made = [jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype)) for shape, dtype in flat]
    else:
        made = [keras.ops.zeros(shape, dtype) for shape, dtype in flat]
    return keras.tree.pack_sequence_as(like, made)


def forward(model: keras.Model, inputs: Any) -> taps.Pass:
    """One pass of the model on abstract or real inputs, for what is in it; its tensors are of no use after.

    Raises:
        UsageError: the model has no `call` that can be run, or a layer's name that TensorFlow cannot trace.
    """
    seen: dict[str, Any] = {}

    def run(x):
        with keras.StatelessScope(), taps.opened(model, evaluating=True, marked=True) as opened:
            outputs = model(x, training=False)
        seen["taps"] = opened
        return keras.tree.flatten(outputs)

    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        _require_scopes(model)
        program = tf.function(run).get_concrete_function(inputs).graph
        missed = audit.of_graph(program, seen["taps"])
    elif name == "jax":
        import jax

        program = jax.make_jaxpr(run)(inputs)
        missed = audit.of_jaxpr(program, seen["taps"])
    else:
        import torch

        with torch.no_grad():
            run(inputs)
        missed = {}
    found = seen["taps"].passes[0]
    for path, why in missed.items():
        found.missed.setdefault(path, why)
    return found


def compiled(function: Callable, model: keras.Model) -> Callable:
    """`function(*arguments)`, compiled where the backend does that, reading the model's weights as they are.

    Variables can be read and assigned inside; what is assigned is dropped.

    Raises:
        UsageError: on TensorFlow, a layer's name that it cannot trace.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        _require_scopes(model)

        def stateless(*arguments):
            with keras.StatelessScope():
                return function(*arguments)

        # relaxed shapes: the last, smaller batch of a pass is not traced again every time
        return tf.function(stateless, reduce_retracing=True)
    if name == "jax":
        import jax

        variables = [*model.trainable_variables, *model.non_trainable_variables]

        @jax.jit
        def of_values(values, *arguments):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return function(*arguments)

        return lambda *arguments: of_values([v.value for v in variables], *arguments)
    import torch

    def without_gradients(*arguments):
        with torch.no_grad(), keras.StatelessScope():
            return function(*arguments)

    return without_gradients


def _require_scopes(model: keras.Model) -> None:
    """Raises UsageError for a name that TensorFlow refuses: after it has, Keras leaves name scopes open."""
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
    """Raises UsageError unless the model is a Keras model that can be called."""
    require_keras(model)
    if not model.built:
        raise UsageError(f"model {model.name!r} must be built: call it on a batch of inputs first")
