"""Models of Keras' own layers, nested models, and layers that behave differently in training."""

import keras
from keras import layers, ops

from tests.census.zoo.table import case, images, inner, on, relu, vectors


@case("fc")
def sequential():
    model = keras.Sequential([keras.Input((6,)), relu(), layers.Dense(3, name="out")])
    return model, vectors()


@case("map", "fc")
def convolutional():
    return on(
        images(),
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="map"),
        layers.GlobalAveragePooling2D(),
        relu(),
    )


@case("separable", "depthwise", "transposed")
def convolutions_of_every_kind():
    return on(
        images(),
        layers.SeparableConv2D(4, 3, activation="relu", name="separable"),
        layers.DepthwiseConv2D(3, activation="relu6", name="depthwise"),
        layers.Conv2DTranspose(4, 3, activation="elu", name="transposed"),
    )


@case(
    "gelu", "silu", "mish", "leaky", "elu", "prelu", "tanh", "clipped", "shifted", "by_layer", "by_function"
)
def activations_of_every_kind():
    return on(
        vectors(),
        *(layers.Dense(6, name, name=name) for name in ("gelu", "silu")),
        *(layers.Dense(6, name="straight"), layers.Activation("mish", name="mish")),
        *(
            layers.Dense(6, name="plain"),
            layers.LeakyReLU(0.1, name="leaky"),
            layers.Dense(6, "elu", name="elu"),
        ),
        *(
            layers.Dense(6, name="linear"),
            layers.PReLU("uniform", name="prelu"),
            layers.Dense(6, "tanh", name="tanh"),
        ),
        *(layers.ReLU(6.0, name="clipped"), layers.ReLU(threshold=0.05, name="shifted")),
        layers.Dense(6, layers.ReLU(), name="by_layer"),
        layers.Lambda(lambda x: ops.relu(x - 0.1), name="by_function"),
    )


@case("relu", "relu#2")
def one_layer_called_twice():
    again = layers.ReLU(name="relu")
    return on(vectors(), layers.Dense(6), again, layers.Dense(6), again)


@case("a", "b", "fc")
def several_inputs_and_outputs():
    a, b = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    joined = layers.Concatenate()([relu(5, "a")(a), relu(3, "b")(b)])
    model = keras.Model({"left": a, "right": b}, [layers.Dense(3)(joined), layers.Dense(2)(relu()(joined))])
    return model, {"left": vectors(), "right": vectors(4)}


@case("fc", trains=False)
def an_input_left_out():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b", optional=True)
    model = keras.Model({"a": a, "b": b}, layers.Dense(3)(relu()(AddIfGiven()(a, b))))
    return model, {"a": vectors(), "b": None}


class AddIfGiven(layers.Layer):
    def call(self, x, second=None):
        return x if second is None else x + second

    def compute_output_shape(self, x_shape, second_shape=None):
        return x_shape


# nested models


@case("inner/a", "inner/b", "fc")
def nested():
    return on(vectors(), inner(), relu())


@case("inner/a", "inner/b", "inner/a#2", "inner/b#2")
def nested_and_called_twice():
    shared = inner()
    return on(vectors(), shared, shared)


@case("inner/a", "inner/b")
def nested_and_called_by_keyword():
    shared = inner()
    return on(vectors(), lambda x: shared(inputs=x))


@case("outer/inner/a", "outer/inner/b")
def nested_in_nested():
    inputs = keras.Input((6,))
    return on(vectors(), keras.Model(inputs, inner()(inputs), name="outer"))


# layers that behave differently in training


@case("fc")
def flips():
    return on(images(), layers.RandomFlip(seed=1), layers.Flatten(), relu())


@case("fc")
def augmentation():
    turned = layers.RandomRotation(0.5, seed=1), layers.RandomZoom(0.3, seed=3)
    return on(images(), *turned, layers.RandomContrast(0.5, seed=2), layers.Flatten(), relu())


@case("fc")
def dropout():
    return on(vectors(), layers.Dropout(0.5, seed=1), layers.GaussianNoise(0.5, seed=2), relu())


@case("fc")
def dropout_always_on():
    drop = layers.Dropout(0.5, seed=1)
    return on(vectors(), lambda x: drop(x, training=True), relu())


@case("fc")
def batch_norm_in_training_mode():
    norm = layers.BatchNormalization()
    return on(vectors(), lambda x: norm(x, training=True), relu())


@case("inner/fc", "outer_fc")
def nested_in_training_mode():
    inside = keras.Sequential([keras.Input((6,)), layers.Dropout(0.5, seed=1), relu()], name="inner")
    return on(vectors(), lambda x: inside(x, training=True), relu(name="outer_fc"))


class AlwaysNoisy(layers.Layer):
    """Noise at inference too, from a seed generator, as the sampling of a VAE."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, x):
        return x + 0 * keras.random.normal(ops.shape(x), seed=self.seeds)


@case("fc")
def random_at_inference():
    return on(vectors(), AlwaysNoisy(), relu())
