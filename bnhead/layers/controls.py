"""The controls of a comparison: layers that apply a single effect of a batch norm.

A batch norm subtracts the batch's mean, divides by its deviation, and adds noise, since it estimates both on
a batch. `BatchCentering`, `BatchScaling` and `BatchNoise` each do one of the three, without gamma and beta.
`FrozenCentering` and `FrozenScaling` do the first two with statistics that do not change in training, so that
neither noise nor a gradient through the statistics comes with them.
"""

import keras
import numpy as np
from keras import ops

from bnhead.layers.moments import moments, moving_average, standardize
from bnhead.layers.normalization import EPSILON, MOMENTUM


class _Control(keras.layers.Layer):
    """Holds moving averages of the batch moments. Subclasses define `normalise(x, mean, variance)`.

    Training passes the batch's moments to `normalise`, inference the moving averages.

    Args:
        momentum: weight of the previous moving average in each step, in [0, 1).
        epsilon: added to the variance.
        synchronized: whether to pool the batches of all replicas of `tf.distribute`.

    Input: `(batch, ..., channels)`; mask `(batch, ...)`.
    """

    def __init__(
        self, momentum: float = MOMENTUM, epsilon: float = EPSILON, synchronized: bool = False, **options
    ):
        super().__init__(**options)
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized
        self.supports_masking = True

    def build(self, input_shape):
        options = {"shape": (input_shape[-1],), "trainable": False, "autocast": False}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **options)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **options)

    def call(self, inputs, training=None, mask=None):
        x = ops.cast(inputs, "float32")
        if training and self.trainable:
            outputs = self.normalise_batch(x, *moments(x, mask, synchronized=self.synchronized))
        else:
            averages = (ops.cast(average, x.dtype) for average in (self.moving_mean, self.moving_variance))
            outputs = self.normalise(x, *averages)
        return ops.cast(outputs, self.compute_dtype)

    def normalise_batch(self, x, mean, variance):
        """`normalise` by the batch's moments; updates the moving averages."""
        self._update_averages(mean, variance, self.momentum)
        return self.normalise(x, mean, variance)

    def _update_averages(self, mean, variance, momentum):
        self.moving_mean.assign(moving_average(self.moving_mean, mean, momentum))
        self.moving_variance.assign(moving_average(self.moving_variance, variance, momentum))

    def to_plain(self) -> tuple[keras.layers.Layer, list]:
        """A frozen Keras batch norm that computes the same in inference, and its weights."""
        scale, shift = self.inference_affine()
        norm = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=0.0, name=self.name, dtype=self.dtype_policy, trainable=False
        )
        return norm, [-shift / scale, 1 / scale**2]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        settings = ("momentum", "epsilon", "synchronized")
        return {**super().get_config(), **{name: getattr(self, name) for name in settings}}


@keras.saving.register_keras_serializable("bnhead")
class BatchCentering(_Control):
    """A batch norm's subtraction alone: x - mean.

    Uses the batch's mean in training and the moving average in inference. Known as mean-only batch norm
    (Salimans & Kingma 2016, arXiv 1602.07868, section 3), here without a learned offset.
    """

    def normalise(self, x, mean, variance):
        """x - mean."""
        return x - mean

    def inference_affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift of each channel in inference, float64."""
        mean = np.asarray(ops.convert_to_numpy(self.moving_mean), "float64")
        return np.ones_like(mean), -mean


@keras.saving.register_keras_serializable("bnhead")
class BatchScaling(_Control):
    """A batch norm's division alone: x / sqrt(variance + epsilon).

    Uses the batch's biased variance around its mean in training and the moving average in inference. The
    mean remains in x.
    """

    def normalise(self, x, mean, variance):
        """x / sqrt(variance + epsilon)."""
        return x * ops.rsqrt(variance + self.epsilon)

    def inference_affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift of each channel in inference, float64."""
        variance = np.asarray(ops.convert_to_numpy(self.moving_variance), "float64")
        return 1 / np.sqrt(variance + self.epsilon), np.zeros_like(variance)


class _Frozen:
    """Statistics that do not change in training, for a `_Control`: 0 and 1 until they are measured.

    `recompute_batch_stats(model, data, "frozen")` measures them on training data. `bnhead train` does so
    once, before the first step.
    """

    def normalise_batch(self, x, mean, variance):
        """x, normalised by the frozen statistics; those of the batch are not used."""
        return self.normalise(x, *(ops.cast(v, x.dtype) for v in (self.moving_mean, self.moving_variance)))


@keras.saving.register_keras_serializable("bnhead")
class FrozenCentering(_Frozen, BatchCentering):
    """x - mean with the frozen mean of the training data, always.

    Arguments and input as of `BatchCentering`; `momentum` has no effect.
    """


@keras.saving.register_keras_serializable("bnhead")
class FrozenScaling(_Frozen, BatchScaling):
    """x / sqrt(variance + epsilon) with the frozen variance of the training data, always.

    Arguments and input as of `BatchScaling`; `momentum` has no effect. The mean remains in x.
    """


@keras.saving.register_keras_serializable("bnhead")
class BatchNoise(_Control):
    """Adds a batch norm's batch noise to features that are not normalised. The identity in inference.

    Let z = (x - m) / s with the batch's mean m and deviation s = sqrt(variance + epsilon), and Z = (x - M) /
    S with the moving averages M, S of the previous batches. A batch norm computes z in training and Z in
    inference; the difference is its noise, in units of a deviation. In training this layer returns x + S (z -
    Z), with the difference as a constant: it adds the noise of a batch norm in the units of the features, and
    its gradient is the identity.

    Over the first 1 / (1 - momentum) batches the averages are plain means, so that their initial values 0 and
    1 do not count as noise; the first batch gets none. While features change fast, their drift over the last
    few batches is part of the difference, as it is in a batch norm.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def normalise_batch(self, x, mean, variance):
        """x plus the noise; updates the moving averages."""
        moving_mean = ops.cast(self.moving_mean, "float32")
        moving_deviation = ops.sqrt(ops.cast(self.moving_variance, "float32") + self.epsilon)
        noise = moving_deviation * standardize(x, mean, variance, self.epsilon) - (x - moving_mean)
        step = ops.cast(self.step, "float32")
        noise = ops.where(step > 0, ops.stop_gradient(noise), 0.0)
        # a momentum of step / (step + 1) makes the moving average the mean of all batches
        self._update_averages(mean, variance, ops.minimum(step / (step + 1), self.momentum))
        self.step.assign_add(1)
        return x + noise

    def normalise(self, x, mean, variance):
        """x itself."""
        return x

    def to_plain(self) -> None:
        """None: the layer is the identity in inference."""
