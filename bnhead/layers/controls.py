"""Layers that do one of the things a batch norm does, and nothing else: the controls of a comparison.

A batch norm subtracts the batch's mean, divides by its deviation, and by estimating both on a batch adds
noise. `BatchCentering`, `BatchScaling` and `BatchNoise` each do one of the three. None has gamma or beta.
"""

import keras
import numpy as np
from keras import ops

from bnhead.layers.constants import EPSILON, MOMENTUM
from bnhead.layers.moments import moments


class _Control(keras.layers.Layer):
    """Moving averages of a batch's moments; `normalise` says what is done with them.

    In training it is given the batch's moments, in inference the moving averages.

    Args:
        momentum: share of the moving averages that is kept each step, in [0, 1).
        epsilon: added to the variance.
        synchronized: whether the batch is that of all replicas of `tf.distribute`.

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
        channels = (input_shape[-1],)
        self.moving_mean = self._average_of("moving_mean", channels, "zeros")
        self.moving_variance = self._average_of("moving_variance", channels, "ones")

    def _average_of(self, name, shape, initial):
        return self.add_weight(name=name, shape=shape, initializer=initial, trainable=False, autocast=False)

    def call(self, inputs, training=None, mask=None):
        x = ops.cast(inputs, "float32")
        if training and self.trainable:
            outputs = self._train(x, *moments(x, mask, synchronized=self.synchronized))
        else:
            outputs = self.normalise(
                x, ops.cast(self.moving_mean, x.dtype), ops.cast(self.moving_variance, x.dtype)
            )
        return ops.cast(outputs, self.compute_dtype)

    def _train(self, x, mean, variance):
        self._average(mean, variance, self.momentum)
        return self.normalise(x, mean, variance)

    def _average(self, mean, variance, momentum):
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept = ops.cast(average, "float32") * momentum
            average.assign(ops.cast(kept + value * (1 - momentum), average.dtype))

    def to_plain(self) -> tuple[keras.layers.Layer, list]:
        """A frozen Keras batch norm with the same results in inference, and its weights."""
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

    The batch's mean in training, the moving average in inference. Known as mean-only batch norm (Salimans &
    Kingma 2016, arXiv 1602.07868, section 3), here without an offset of its own.
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

    The batch's (biased) variance around its mean in training, the moving average in inference; the mean
    itself stays in x.
    """

    def normalise(self, x, mean, variance):
        """x / sqrt(variance + epsilon)."""
        return x * ops.rsqrt(variance + self.epsilon)

    def inference_affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift of each channel in inference, float64."""
        variance = np.asarray(ops.convert_to_numpy(self.moving_variance), "float64")
        return 1 / np.sqrt(variance + self.epsilon), np.zeros_like(variance)


@keras.saving.register_keras_serializable("bnhead")
class BatchNoise(_Control):
    """A batch norm's batch noise alone, on features that are not normalised. The identity in inference.

    Let z = (x - m) / s with the batch's mean m and deviation s = sqrt(variance + epsilon), and Z = (x - M) /
    S with the moving averages of the batches before. A batch norm computes z where inference will compute Z;
    their difference is its noise, in units of a deviation. In training the output is x + S (z - Z), the
    difference without gradient, so that the layer adds what a batch norm adds, in the features' own units,
    and hands gradients through as they come.

    The averages are plain means over the first 1 / (1 - momentum) batches, so that their start at 0 and 1
    does not pass for noise; the first batch gets none. While features move fast, their drift since the last
    few batches is part of the difference, as it is in a batch norm.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def _train(self, x, mean, variance):
        moving_mean = ops.cast(self.moving_mean, "float32")
        moving_deviation = ops.sqrt(ops.cast(self.moving_variance, "float32") + self.epsilon)
        z = (x - mean) * ops.rsqrt(variance + self.epsilon)
        noise = moving_deviation * z - (x - moving_mean)
        step = ops.cast(self.step, "float32")
        noise = ops.where(step > 0, ops.stop_gradient(noise), 0.0)
        self._average(mean, variance, ops.minimum(step / (step + 1), self.momentum))
        self.step.assign_add(1)
        return x + noise

    def normalise(self, x, mean, variance):
        """x: nothing is normalised."""
        return x

    def to_plain(self) -> None:
        """Nothing: the layer is the identity in inference."""
