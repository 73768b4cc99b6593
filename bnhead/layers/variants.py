"""Batch norms that normalise by other statistics in training: ghost batches', corrected, frozen ones.

In inference all three are a batch norm: the moving averages normalise. They share its weights, so a head with
one of them can be folded, copied and recalibrated like any other. With `synchronized` the batch is that of
all replicas of `tf.distribute`; ghosts are cut from each replica's own part.
"""

import keras
from keras import ops

from bnhead.layers.moments import ghost_moments, moments
from bnhead.layers.normalization import BatchNormalization


class _Variant(BatchNormalization):
    """A batch norm over the last axis whose `_train(x, mask)` says what happens in training."""

    def __init__(self, **options):
        super().__init__(**options)
        if self.axis != -1:
            raise ValueError(f"axis must be -1, got {self.axis}")
        if self.renorm:
            raise ValueError(f"{type(self).__name__} takes no renorm")

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        return ops.cast(self._train(ops.cast(inputs, "float32"), mask), self.compute_dtype)

    def _affine(self, z):
        """gamma z + beta, as far as the layer has them."""
        z = z * ops.cast(self.gamma, z.dtype) if self.scale else z
        return z + ops.cast(self.beta, z.dtype) if self.center else z

    def _average(self, mean, variance):
        """Moves the moving averages towards a batch's moments."""
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            value = ops.cast(value, average.dtype)
            average.assign(average * self.momentum + value * (1 - self.momentum))


@keras.saving.register_keras_serializable("bnhead")
class GhostBatchNormalization(_Variant):
    """Ghost batch norm: in training, each part of the batch is normalised by its own statistics.

    A large batch then has the noise of a small one. In training a batch of B is cut, in order, into
    `max(1, B // ghost_size)` ghosts; a remainder is shared out, so no ghost is smaller than asked. The moving
    averages take one step per batch, towards the mean and biased variance of the *whole* batch, which is what
    inference will meet. (Hoffer et al. step once per ghost, with a shorter memory; their mean settles at the
    same value, their variance at that of the ghosts, which is smaller.)

    Args:
        ghost_size: examples in a ghost, at least 2.
        options: as `keras.layers.BatchNormalization`'s; the axis is the last.

    Input: `(batch, ..., channels)`; mask `(batch, ...)`.

    Reference: Hoffer et al. 2017, arXiv 1705.08741, algorithm 1.
    """

    def __init__(self, ghost_size: int = 32, **options):
        super().__init__(**options)
        if not isinstance(ghost_size, int) or ghost_size < 2:
            raise ValueError(f"ghost_size must be a whole number of at least 2, got {ghost_size!r}")
        self.ghost_size = ghost_size

    def _train(self, x, mask):
        mean, variance = ghost_moments(x, self.ghost_size, mask)
        self._average(*moments(x, mask, synchronized=self.synchronized))
        return self._affine((x - mean) * ops.rsqrt(variance + self.epsilon))

    def get_config(self):
        return {**super().get_config(), "ghost_size": self.ghost_size}


@keras.saving.register_keras_serializable("bnhead")
class BatchRenormalization(_Variant):
    """Batch renorm: in training, batch statistics corrected towards the moving ones, within growing bounds.

    With the batch's mean m and deviation s = sqrt(variance + epsilon), and the moving averages M and S:
    r = clip(s / S, 1 / r_max, r_max), d = clip((m - M) / S, -d_max, d_max), both without gradient, and
    y = gamma ((x - m) / s r + d) + beta. The bounds start at r_max = 1 and d_max = 0, a plain batch norm,
    stay there for `steps` / 8 steps, and rise linearly: r_max to its value at `steps`, d_max to its at 5/8 of
    them. That is the paper's schedule (5,000, 25,000 and 40,000 steps), and its length when `steps` is
    40,000; Keras' own `renorm=True` has fixed bounds.

    As in the paper it is the *deviation* that is averaged; `moving_variance` holds its square less epsilon,
    so that in inference the layer is a batch norm.

    Args:
        steps: training steps after which both bounds have their final values.
        r_max: final bound of the correction of the deviation, at least 1.
        d_max: final bound of the correction of the mean, at least 0.
        options: as `keras.layers.BatchNormalization`'s; the axis is the last.

    Input: `(batch, ..., channels)`; mask `(batch, ...)`.

    Reference: Ioffe 2017, arXiv 1702.03275, algorithm 1 and section 3.
    """

    def __init__(self, steps: int = 40_000, r_max: float = 3.0, d_max: float = 5.0, **options):
        super().__init__(**options)
        if steps < 1 or r_max < 1 or d_max < 0:
            raise ValueError(
                f"steps, r_max and d_max must be at least 1, 1 and 0, got {steps}, {r_max}, {d_max}"
            )
        self.steps = steps
        self.r_max = r_max
        self.d_max = d_max

    def build(self, input_shape):
        super().build(input_shape)
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def bounds(self) -> tuple:
        """r_max and d_max at the present step, float32 scalars."""
        progress = ops.cast(self.step, "float32") / self.steps
        rise = ops.clip((progress - 1 / 8) / (7 / 8), 0, 1), ops.clip((progress - 1 / 8) / (4 / 8), 0, 1)
        return 1 + (self.r_max - 1) * rise[0], self.d_max * rise[1]

    def _train(self, x, mask):
        mean, variance = moments(x, mask, synchronized=self.synchronized)
        deviation = ops.sqrt(variance + self.epsilon)
        moving_mean = ops.cast(self.moving_mean, "float32")
        moving_deviation = ops.sqrt(ops.cast(self.moving_variance, "float32") + self.epsilon)
        r_max, d_max = self.bounds()
        r = ops.stop_gradient(ops.clip(deviation / moving_deviation, 1 / r_max, r_max))
        d = ops.stop_gradient(ops.clip((mean - moving_mean) / moving_deviation, -d_max, d_max))
        averaged = moving_deviation * self.momentum + deviation * (1 - self.momentum)
        self.moving_mean.assign(
            ops.cast(moving_mean * self.momentum + mean * (1 - self.momentum), self.moving_mean.dtype)
        )
        self.moving_variance.assign(
            ops.cast(ops.relu(ops.square(averaged) - self.epsilon), self.moving_variance.dtype)
        )
        self.step.assign_add(1)
        return self._affine((x - mean) / deviation * r + d)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps, "r_max": self.r_max, "d_max": self.d_max}


@keras.saving.register_keras_serializable("bnhead")
class FrozenBatchNormalization(_Variant):
    """Batch norm with statistics that training does not touch: an affine change, and no batch noise.

    In training and in inference alike, y = gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta,
    with gamma and beta trained. The statistics are 0 and 1 until they are measured on training data, once,
    before training: `recompute_batch_stats(model, data, "frozen")`, which `bnhead train` does.
    """

    def _train(self, x, mask):
        z = (x - ops.cast(self.moving_mean, "float32")) * ops.rsqrt(
            ops.cast(self.moving_variance, "float32") + self.epsilon
        )
        return self._affine(z)
