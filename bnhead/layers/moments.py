"""The arithmetic of norms: mean and variance, their merge and moving average, normalisation, gain and offset.

Everything on the device is float32, whatever the dtype of the input: a bfloat16 sum of a few thousand values
loses its last digits.
"""

import keras
import numpy as np
from keras import ops


def moments(x, mask=None, *, synchronized: bool = False):
    """Mean and biased variance of each channel.

    Args:
        x: `(batch, ..., channels)`.
        mask: `(batch, ...)` bool, one axis less than `x`; False excludes an element. None includes all.
        synchronized: whether to pool the batches of all replicas of `tf.distribute`. JAX always pools: an
            array is the entire batch, however many devices hold it.

    Returns:
        Two float32 tensors `(channels,)`; zeros if the mask excludes every element.
    """
    x = ops.cast(x, "float32")
    axes = tuple(range(len(x.shape) - 1))
    if mask is None and not synchronized:
        mean = ops.mean(x, axes)
        return mean, ops.mean(ops.square(x - mean), axes)
    mask = ops.ones_like(x[..., :1], "bool") if mask is None else broadcast_mask(x, mask)
    add_up = _sum_over_replicas if synchronized else lambda total: total
    count = ops.maximum(add_up(ops.sum(ops.cast(mask, "float32"))), 1.0)
    mean = add_up(ops.sum(ops.where(mask, x, 0.0), axes)) / count
    # where, not a product: 0 times a masked NaN is NaN
    return mean, add_up(ops.sum(ops.where(mask, ops.square(x - mean), 0.0), axes)) / count


def broadcast_mask(x, mask):
    """The mask of each element of `x`, `(..., 1)`; an axis of size 1 is repeated."""
    if len(mask.shape) != len(x.shape) - 1:
        raise ValueError(f"mask must have one axis less than the inputs {x.shape}, got {mask.shape}")
    return ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), -1), (*ops.shape(x)[:-1], 1))


def _sum_over_replicas(total):
    """The sum of the replicas' totals, with its gradient; `total` outside of a replica."""
    if keras.backend.backend() != "tensorflow":
        return total
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return total if replica is None else replica.all_reduce(tf.distribute.ReduceOp.SUM, total)


def ghost_moments(x, size: int, mask=None):
    """Mean and biased variance of each channel within the ghost batch that an example belongs to.

    A batch of B examples is split, in order, into `max(1, B // size)` ghosts. Their sizes differ by at most
    one example, and none is below `size` unless B is.

    Args:
        x: `(batch, ..., channels)`.
        size: minimum number of examples in a ghost.
        mask: as in `moments`.

    Returns:
        Two float32 tensors `(batch, 1, ..., channels)`, which broadcast to `x`.
    """
    batch = ops.shape(x)[0]  # an integer if it is static: XLA needs a static `num_segments`
    number = max(batch // size, 1) if isinstance(batch, int) else ops.maximum(batch // size, 1)
    ghost = (ops.arange(batch, dtype="int32") * number) // batch
    mean, variance, _ = group_moments(x, ghost, number, mask)
    return tuple(by_example(values, ghost, len(x.shape)) for values in (mean, variance))


def group_moments(x, group, number, mask=None, *, synchronized: bool = False):
    """Mean and biased variance of each channel within each group of examples.

    Args:
        x: `(batch, ..., channels)`.
        group: `(batch,)` integers in 0 to `number` - 1, the group of each example.
        number: of groups.
        mask: as in `moments`.
        synchronized: as in `moments`.

    Returns:
        Two float32 tensors `(number, channels)`, zeros for a group without elements, and the number of
        elements of each group, `(number, 1)` float32.
    """
    x = ops.cast(x, "float32")
    mask = mask if mask is None else broadcast_mask(x, mask)
    inner = tuple(range(1, len(x.shape) - 1))
    add_up = _sum_over_replicas if synchronized else lambda total: total

    def group_sum(values):
        values = values if mask is None else ops.where(mask, values, 0.0)
        sums = ops.sum(values, inner) if inner else values
        if _multiplies(number):
            return add_up(ops.matmul(ops.one_hot(group, number, axis=0), sums))
        return add_up(ops.segment_sum(sums, group, num_segments=number))

    count = group_sum(ops.ones_like(x[..., :1]))
    at_least_one = ops.maximum(count, 1.0)
    mean = group_sum(x) / at_least_one
    deviations = x - by_example(mean, group, len(x.shape))
    return mean, group_sum(ops.square(deviations)) / at_least_one, count


def by_example(values, group, rank: int):
    """The row of `values`, `(groups, channels)`, of each example's group, `(batch, 1, ..., channels)`.

    Args:
        values: finite float32 numbers, a row for each group.
        group: `(batch,)` integers.
        rank: number of axes of the result, those of the examples.
    """
    number = values.shape[0]
    if _multiplies(number):
        rows = ops.matmul(ops.one_hot(group, number), values)
    else:
        rows = ops.take(values, group, axis=0)
    return ops.expand_dims(rows, tuple(range(1, rank - 1))) if rank > 2 else rows


def _multiplies(number) -> bool:
    """Whether to add up and to spread few groups by a product with zeros and ones.

    On a CPU this takes a third of the time of a segmented sum. On a GPU a product may round its factors to
    TensorFloat-32, which has 10 of 23 bits.
    """
    if not isinstance(number, int) or number > 16:
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.config.get_visible_devices("GPU")
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return False


def standardize(x, mean, variance, epsilon: float):
    """(x - mean) / sqrt(variance + epsilon)."""
    return (x - mean) * ops.rsqrt(variance + epsilon)


def affine(z, gamma=None, beta=None):
    """gamma z + beta in the dtype of `z`; None is a gain of 1 or an offset of 0."""
    z = z if gamma is None else z * ops.cast(gamma, z.dtype)
    return z if beta is None else z + ops.cast(beta, z.dtype)


def moving_average(average, value, momentum):
    """One step of a moving average, in `value`'s dtype; `momentum` is the share of the previous average."""
    return ops.cast(average, value.dtype) * momentum + value * (1 - momentum)


class PooledMoments:
    """Mean and sum of squares around it of several batches, float64 (Chan et al. 1979, equation 2.1).

    Attributes:
        count: number of values.
        mean: `(channels,)`.
        squares: `(channels,)`, `count` times the biased variance.
    """

    def __init__(self):
        self.count = 0.0
        self.mean = self.squares = 0.0

    def add(self, mean: np.ndarray, variance: np.ndarray, count: float) -> None:
        """Merges the moments of a batch of `count` values."""
        difference = mean.astype("float64") - self.mean
        total = self.count + count
        self.squares = self.squares + variance.astype("float64") * count
        self.squares = self.squares + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total
