"""Batch norms that normalise by other statistics in training: ghost, corrected or frozen ones.

In inference all three are a batch norm: they normalise by the moving averages. They have the same weights,
so a head with one of them can be folded, copied and recalibrated like any other. `synchronized` pools the
batches of all replicas of `tf.distribute`; each replica splits its part of the batch into ghosts.
"""

import keras
from keras import ops

from bnhead.layers.moments import affine, ghost_moments, moments, moving_average, standardize
from bnhead.layers.normalization import BatchNormalization


class _Variant(BatchNormalization):
    """A batch norm over the last axis. Subclasses define `normalise_batch(x, mask)`, used in training."""

    def __init__(self, **options):
        super().__init__(**options)
        if self.axis != -1:
            raise ValueError(f"axis must be -1, got {self.axis}")
        if self.renorm:
            raise ValueError(f"{type(self).__name__} takes no renorm")

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        z = self.normalise_batch(ops.cast(inputs, "float32"), mask)
        return ops.cast(affine(z, self.gamma, self.beta), self.compute_dtype)


@keras.saving.register_keras_serializable("bnhead")
class GhostBatchNormalization(_Variant):
    """Ghost batch norm: in training, each part of the batch is normalised by the statistics of that part.

    A large batch then has the noise of a small one. In training a batch of B is split, in order, into
    `max(1, B // ghost_size)` ghosts, none smaller than `ghost_size` unless B is. The moving averages take one
    step per batch, towards the mean and biased variance of the *entire* batch, which are the statistics of
    inference. (Hoffer et al. step once per ghost, with a shorter memory; their mean converges to the same
    value, their variance to that of the ghosts, which is smaller.)

    Args:
        ghost_size: minimum number of examples in a ghost, at least 2.
        options: arguments of `keras.layers.BatchNormalization`; the axis is the last.

    Input: `(batch, ..., channels)`; mask `(batch, ...)`.

    Reference: Hoffer et al. 2017, arXiv 1705.08741, algorithm 1.
    """

    def __init__(self, ghost_size: int = 32, **options):
        super().__init__(**options)
        if not isinstance(ghost_size, int) or ghost_size < 2:
            raise ValueError(f"ghost_size must be a whole number of at least 2, got {ghost_size!r}")
        self.ghost_size = ghost_size

    def normalise_batch(self, x, mask):
        """x, normalised by ghost; updates the moving averages."""
        mean, variance = moments(x, mask, synchronized=self.synchronized)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            # in the average's dtype, as Keras' batch norm does it
            average.assign(moving_average(average, ops.cast(value, average.dtype), self.momentum))
        return standardize(x, *ghost_moments(x, self.ghost_size, mask), self.epsilon)

    def get_config(self):
        return {**super().get_config(), "ghost_size": self.ghost_size}


@keras.saving.register_keras_serializable("bnhead")
class BatchRenormalization(_Variant):
    """Batch renorm: in training, batch statistics corrected towards the moving ones, within growing bounds.

    With the batch's mean m and deviation s = sqrt(variance + epsilon), and the moving averages M and S:
    r = clip(s / S, 1 / r_max, r_max), d = clip((m - M) / S, -d_max, d_max), both without gradient, and
    y = gamma ((x - m) / s r + d) + beta. The bounds start at r_max = 1 and d_max = 0, a plain batch norm,
    remain there for `steps` / 8 steps, and rise linearly: r_max until `steps`, d_max until 5/8 of `steps`.
    With `steps` = 40,000 this is the paper's schedule (5,000, 25,000 and 40,000 steps). Keras'
    `renorm=True` has constant bounds.

    As in the paper the *deviation* is averaged. `moving_variance` holds its square minus epsilon, so that
    the layer is a batch norm in inference.

    Args:
        steps: training steps after which both bounds have their final values.
        r_max: final bound of the correction of the deviation, at least 1.
        d_max: final bound of the correction of the mean, at least 0.
        options: arguments of `keras.layers.BatchNormalization`; the axis is the last.

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
        """r_max and d_max at the current step, float32 scalars."""
        progress = ops.cast(self.step, "float32") / self.steps
        r_share = ops.clip((progress - 1 / 8) / (7 / 8), 0, 1)
        d_share = ops.clip((progress - 1 / 8) / (4 / 8), 0, 1)
        return 1 + (self.r_max - 1) * r_share, self.d_max * d_share

    def normalise_batch(self, x, mask):
        """x, normalised by the corrected statistics; updates the moving averages."""
        mean, variance = moments(x, mask, synchronized=self.synchronized)
        deviation = ops.sqrt(variance + self.epsilon)
        moving_mean = ops.cast(self.moving_mean, "float32")
        moving_deviation = ops.sqrt(ops.cast(self.moving_variance, "float32") + self.epsilon)
        r_max, d_max = self.bounds()
        r = ops.stop_gradient(ops.clip(deviation / moving_deviation, 1 / r_max, r_max))
        d = ops.stop_gradient(ops.clip((mean - moving_mean) / moving_deviation, -d_max, d_max))
        self.moving_mean.assign(moving_average(moving_mean, mean, self.momentum))
        averaged = moving_average(moving_deviation, deviation, self.momentum)
        self.moving_variance.assign(ops.relu(ops.square(averaged) - self.epsilon))
        self.step.assign_add(1)
        return (x - mean) / deviation * r + d

    def get_config(self):
        return {**super().get_config(), "steps": self.steps, "r_max": self.r_max, "d_max": self.d_max}


@keras.saving.register_keras_serializable("bnhead")
class FrozenBatchNormalization(_Variant):
    """Batch norm whose statistics do not change in training: an affine map without batch noise.

    Training and inference compute y = gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta, with
    gamma and beta trained. The statistics are 0 and 1 until `recompute_batch_stats(model, data, "frozen")`
    measures them on training data. `bnhead train` does so once, before training.
    """

    def normalise_batch(self, x, mask):
        """x, normalised by the moving averages."""
        averages = (ops.cast(average, "float32") for average in (self.moving_mean, self.moving_variance))
        return standardize(x, *averages, self.epsilon)
