"""Generative models, and models with a training step of their own."""

import keras
import numpy as np
from keras import layers, ops

from tests.census.zoo.reference import activation
from tests.census.zoo.table import called, case, images, on, relu, vectors


def alone(*losses, **options):
    """`Case.prepare` of a model that trains without targets."""

    def prepare(model, x):
        model.compile(keras.optimizers.SGD(0.01), *losses, jit_compile=False, **options)
        return x, None

    return prepare


class Sample(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(11)

    def call(self, moments):
        mean, log_variance = moments
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seeds)


class VariationalAutoencoder(keras.Model):
    """An encoder of three outputs, a decoder, trackers, and a loss of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        image = keras.Input((8, 8, 1))
        x = layers.Conv2D(4, 3, activation="relu", strides=2, padding="same", name="encoder_map")(image)
        x = relu(6, "encoder_fc")(layers.Flatten()(x))
        mean, log_variance = layers.Dense(2, name="mean")(x), layers.Dense(2, name="log_variance")(x)
        outputs = [mean, log_variance, Sample(name="z")([mean, log_variance])]
        self.encoder = keras.Model(image, outputs, name="encoder")
        latent = keras.Input((2,))
        x = layers.Reshape((4, 4, 2))(relu(32, "decoder_fc")(latent))
        x = layers.Conv2DTranspose(3, 3, activation="relu", strides=2, padding="same", name="decoder_map")(x)
        x = layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(x)
        self.decoder = keras.Model(latent, x, name="decoder")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("reconstruction", "kl")}

    def call(self, x):
        return self.decoder(self.encoder(x)[2])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean, log_variance, _ = self.encoder(x)
        reconstruction = ops.mean(ops.sum((x - y_pred) ** 2, axis=(1, 2, 3)))
        kl = -0.5 * ops.mean(1 + log_variance - mean**2 - ops.exp(log_variance))
        self.trackers["reconstruction"].update_state(reconstruction)
        self.trackers["kl"].update_state(kl)
        return reconstruction + kl


_ENCODER, _DECODER = (
    [f"{part}/{part}_{kind}" for kind in kinds]
    for part, kinds in (("encoder", ("map", "fc")), ("decoder", ("fc", "map")))
)


@case(*_ENCODER, *_DECODER, unseen=(4,), prepare=alone(), step=[*_ENCODER, *_DECODER, *_ENCODER])
def variational_autoencoder():
    return called(VariationalAutoencoder(name="vae"), images(8, 1))


class Adversaries(keras.Model):
    """Generator and discriminator with an optimizer each, and a penalty on gradients; no `call`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.generator = keras.Sequential(
            [keras.Input((6,)), relu(7, "up"), layers.Dense(5)], name="generator"
        )
        hidden = layers.Dense(8, name="hidden")
        self.discriminator = keras.Sequential(
            [keras.Input((5,)), hidden, layers.LeakyReLU(0.2, name="leaky"), layers.Dense(1)],
            name="discriminator",
        )
        self.seeds = keras.random.SeedGenerator(5)

    def compile(self, optimizers):
        super().compile()
        self.optimizers = optimizers

    def train_step(self, real):
        import tensorflow as tf

        noise = keras.random.normal((tf.shape(real)[0], 6), seed=self.seeds)
        with tf.GradientTape() as tape:
            fake = self.generator(noise, training=True)
            with tf.GradientTape() as inner:
                middle = (real + fake) / 2
                inner.watch(middle)
                score = self.discriminator(middle, training=True)
            slope = tf.norm(inner.gradient(score, middle), axis=1)
            loss = tf.reduce_mean(self.discriminator(fake) - self.discriminator(real))
            loss += tf.reduce_mean((slope - 1) ** 2)
        weights = self.discriminator.trainable_weights
        self.optimizers[0].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.discriminator(self.generator(noise, training=True), training=True))
        weights = self.generator.trainable_weights
        self.optimizers[1].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def adversarial(model, x):
    model.compile([keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01)])
    return vectors(5), None


_LEAKY = "discriminator/leaky"


@case(
    "up",
    part="generator",
    prepare=adversarial,
    step=["generator/up", _LEAKY, _LEAKY, _LEAKY, "generator/up", _LEAKY],
    backends=("tensorflow",),
    evaluates=False,
)
def adversaries():
    return Adversaries(name="gan"), vectors()


class Tied(layers.Layer):
    """The transposed kernel of another layer, a bias, and an activation."""

    def __init__(self, dense, activation=None, **options):
        super().__init__(**options)
        self.dense, self.activation = dense, keras.activations.get(activation)

    def build(self, shape):
        self.bias = self.add_weight(shape=(self.dense.kernel.shape[0],), initializer="zeros", name="bias")

    def call(self, x):
        return self.activation(ops.matmul(x, ops.transpose(self.dense.kernel)) + self.bias)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.dense.kernel.shape[0])


@case("first", "second", "mirrored", unseen=(3,))
def tied_autoencoder():
    first, second = layers.Dense(5, "selu", name="first"), layers.Dense(3, "selu", name="second")
    inputs = keras.Input((6,))
    x = Tied(second, "selu", name="mirrored")(second(first(inputs)))
    return keras.Model(inputs, Tied(first, "sigmoid")(x)), vectors()


class Coupling(keras.Model):
    """Affine coupling layers: a scale by tanh and a shift, by a mask, and the likelihood as the loss."""

    def __init__(self, depth=2, **options):
        super().__init__(**options)
        self.masks = np.array([[0, 1] * 3, [1, 0] * 3], "float32")
        self.depth = depth
        self.nets = [self.net(i) for i in range(depth)]

    def net(self, i):
        inputs = keras.Input((6,))
        scale = layers.Dense(6, "tanh", name="scale")(relu(8, "scale_hidden")(inputs))
        shift = layers.Dense(6, name="shift")(relu(8, "shift_hidden")(inputs))
        return keras.Model(inputs, [scale, shift], name=f"net{i}")

    def call(self, x, training=False):
        logarithm, direction = 0.0, -1 if training else 1
        for i in range(self.depth)[::direction]:
            mask = ops.convert_to_tensor(self.masks[i % 2])
            scale, shift = self.nets[i](x * mask)
            scale, shift = scale * (1 - mask), shift * (1 - mask)
            x = x * mask + (1 - mask) * (x * ops.exp(direction * scale) + direction * shift)
            logarithm = logarithm + ops.sum(direction * scale, axis=1)
        return x, logarithm

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z, logarithm = y_pred
        return ops.mean(0.5 * ops.sum(z**2, axis=1) - logarithm)


_COUPLED = [[f"net{i}/{name}" for name in ("shift_hidden", "scale_hidden", "scale")] for i in range(2)]


@case(*_COUPLED[0], *_COUPLED[1], prepare=alone(), step=[*_COUPLED[1], *_COUPLED[0]])
def normalizing_flow():
    return called(Coupling(name="flow"), vectors())


class Distiller(keras.Model):
    """Trains a student on the outputs of a teacher, which runs in the step only."""

    def __init__(self, student, teacher, **options):
        super().__init__(**options)
        self.student, self.teacher = student, teacher
        teacher.trainable = False

    def call(self, x, training=None):
        return self.student(x, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        hard = super().compute_loss(x, y, y_pred, sample_weight)
        soft = ops.softmax(self.teacher(x, training=False) / 3)
        return 0.5 * hard + ops.mean(keras.losses.kl_divergence(soft, ops.softmax(y_pred / 3)))


@case("student/small", step=["student/small", "teacher/large"])
def knowledge_distillation():
    def net(units, name, hidden):
        return keras.Sequential([keras.Input((6,)), relu(units, hidden), layers.Dense(3)], name=name)

    return called(Distiller(net(4, "student", "small"), net(9, "teacher", "large")), vectors())


class TwoViews(keras.Model):
    """A contrastive step: two random views of each batch through encoder and projection."""

    def __init__(self, **options):
        super().__init__(**options)
        self.augment = keras.Sequential([layers.RandomFlip(seed=1), layers.RandomBrightness(0.3, seed=2)])
        self.encoder = keras.Sequential(
            [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu", name="map"), layers.Flatten()],
            name="encoder",
        )
        self.projection = keras.Sequential(
            [keras.Input((144,)), relu(5, "hidden"), layers.Dense(4)], name="projection"
        )

    def call(self, x, training=False):
        if not training:
            return self.encoder(x)
        return [self.projection(self.encoder(self.augment(x, training=True))) for _ in range(2)]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        first, second = (ops.normalize(view, axis=1) for view in y_pred)
        logits, labels = ops.matmul(first, ops.transpose(second)) / 0.1, ops.arange(ops.shape(first)[0])
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))


@case(
    "encoder/map",
    prepare=alone(),
    step=["encoder/map", "projection/hidden", "encoder/map#2", "projection/hidden#2"],
    evaluates=False,
)
def two_views():
    model = TwoViews(name="contrastive")
    model.built = True  # both parts are
    return called(model, images())


class Snake(layers.Layer):
    """An activation with a weight per unit."""

    def build(self, shape):
        self.alpha = self.add_weight(shape=(shape[-1],), initializer="ones", name="alpha")

    def call(self, x):
        return self.compute(x)

    @activation
    def compute(self, x):
        return x + ops.sin(self.alpha * x) ** 2 / self.alpha


class Scaled:
    """An activation as an object."""

    def __init__(self, scale):
        self.scale = scale

    @activation
    def __call__(self, x):
        return ops.where(x > 0, self.scale * x, 0.0)


@activation
@keras.saving.register_keras_serializable("bnhead_tests")
def cubed(x):
    return x**3


@case("by_function", "by_object", "by_layer", "by_partial", "by_name")
def activations_of_users():
    return on(
        vectors(),
        layers.Dense(5, cubed, name="by_function"),
        layers.Dense(5, Scaled(1.1), name="by_object"),
        layers.Activation(lambda x: ops.relu(x) ** 2, name="by_layer"),
        layers.Dense(4, lambda x: ops.leaky_relu(x, negative_slope=0.3), name="by_partial"),
        layers.Dense(4, "log_sigmoid", name="by_name"),
    )


class Pointwise(layers.Layer):
    """A function of the user's under another name than `activation`."""

    def __init__(self, units, act_fn, **options):
        super().__init__(**options)
        self.linear, self.act_fn = layers.Dense(units), act_fn

    def call(self, x):
        return self.act_fn(self.linear(x)) + 1


@case("pointwise/function")
def an_activation_under_another_name():
    return on(vectors(), Pointwise(5, cubed, name="pointwise"))


class Bayesian(layers.Layer):
    """A Dense layer with a distribution of its kernel: the softplus of weights is no unit's activation."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units, self.seeds = units, keras.random.SeedGenerator(3)

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1], self.units), name="mean")
        self.rho = self.add_weight(shape=(shape[-1], self.units), initializer="ones", name="rho")

    def call(self, x):
        noise = keras.random.normal(self.mean.shape, seed=self.seeds)
        return ops.relu(ops.matmul(x, self.mean + ops.softplus(self.rho) * noise))


@case("bayesian", "fc")
def bayesian_weights():
    return on(vectors(), Bayesian(5, name="bayesian"), relu())
