"""Activations that cannot be counted, which the census must list."""

from keras import layers, ops

from tests.census.zoo.table import case, on, relu, vectors


class WithMaximum(layers.Layer):
    def call(self, x):
        return ops.maximum(x, 0.0)


@case("fc", missed={"hidden": "maximum with 0"}, backends=("tensorflow", "jax"))
def maximum_with_zero():
    return on(vectors(), layers.Dense(6), WithMaximum(name="hidden"), relu())


class ByHand(layers.Layer):
    """Rectifiers made of other operations, as `f(x)`."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, shape):
        return shape


_BY_HAND = {
    "zeros": (lambda x: ops.maximum(x, ops.zeros_like(x)), "maximum with 0"),
    "clip": (lambda x: ops.clip(x, 0, 6), "maximum with 0"),
    "where": (lambda x: ops.where(x > 0, x, 0.0), "choice between x and 0"),
    "other": (lambda x: ops.where(x <= 0, ops.zeros_like(x), x), "choice between x and 0"),
}


@case(
    "fc",
    missed={name: reason for name, (_, reason) in _BY_HAND.items()},
    backends=("tensorflow", "jax"),
)
def rectifiers_by_hand():
    parts = [ByHand(function, name=name) for name, (function, _) in _BY_HAND.items()]
    not_rectifiers = [lambda x: ops.where(x > 0, x, 0.1), lambda x: ops.clip(x, -1, 1)]
    return on(vectors(), *parts, layers.Dense(6), *map(ByHand, not_rectifiers), relu())


class InCondition(layers.Layer):
    def call(self, x):
        return ops.cond(ops.sum(x) > -1e9, lambda: ops.relu(x), lambda: x)

    def compute_output_shape(self, shape):
        return shape


@case("fc", missed={"maybe": "relu inside ops.cond"}, unseen=(0,))
def condition():
    return on(vectors(), layers.Dense(6), InCondition(name="maybe"), relu())


class InMap(layers.Layer):
    def call(self, x):
        return ops.vectorized_map(lambda row: ops.relu(row), x)

    def compute_output_shape(self, shape):
        return shape


@case("fc", missed={"rows": "relu inside ops.vectorized_map"}, unseen=(0,))
def vectorized_map():
    return on(vectors(), layers.Dense(6), InMap(name="rows"), relu())


class ByNumPy(layers.Layer):
    """TensorFlow does not know the shape of what a function of NumPy returns."""

    def call(self, x):
        import tensorflow as tf

        rows = tf.numpy_function(lambda array: array - 0.1, [x], x.dtype)
        return tf.ensure_shape(tf.nn.relu(rows), x.shape)

    def compute_output_shape(self, shape):
        return shape


@case(
    "fc",
    missed={"numpy": "relu of a tensor of unknown rank"},
    unseen=(0,),
    backends=("tensorflow",),
    trains=False,
)
def a_tensor_of_unknown_rank():
    return on(vectors(), ByNumPy(name="numpy"), relu())
