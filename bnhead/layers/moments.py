"""Mean and variance of a batch, over everything but the channels, with masks, replicas and ghosts.

All in float32 whatever the input's dtype: a bfloat16 sum of a few thousand values has lost its last digits.
"""

import keras
from keras import ops


def moments(x, mask=None, *, synchronized: bool = False):
    """Mean and biased variance of each channel.

    Args:
        x: `(batch, ..., channels)`.
        mask: `(batch, ...)` bool, one axis less than `x`; False leaves an element out. None keeps all.
        synchronized: whether, under `tf.distribute`, they are those of all replicas' batches together. On
            JAX they always are: an array there is the whole batch, on however many devices it lies.

    Returns:
        Two float32 tensors `(channels,)`; zeros where the mask leaves nothing.
    """
    x = ops.cast(x, "float32")
    axes = tuple(range(len(x.shape) - 1))
    if mask is None and not synchronized:
        mean = ops.mean(x, axes)
        return mean, ops.mean(ops.square(x - mean), axes)
    kept = ops.ones_like(x[..., :1], "bool") if mask is None else broadcast_mask(x, mask)
    add_up = _of_all_replicas if synchronized else lambda total: total
    count = ops.maximum(add_up(ops.sum(ops.cast(kept, "float32"))), 1.0)
    mean = add_up(ops.sum(ops.where(kept, x, 0.0), axes)) / count
    return mean, add_up(ops.sum(ops.where(kept, ops.square(x - mean), 0.0), axes)) / count


def broadcast_mask(x, mask):
    """The mask for each element of `x` `(..., 1)`; a size of 1 along an axis holds for all of it."""
    if len(mask.shape) != len(x.shape) - 1:
        raise ValueError(f"mask must have one axis less than the inputs {x.shape}, got {mask.shape}")
    return ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), -1), (*ops.shape(x)[:-1], 1))


def _of_all_replicas(total):
    """The sum of the replicas' totals, with its gradient; the total itself where there is one replica."""
    if keras.backend.backend() != "tensorflow":
        return total
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return total if replica is None else replica.all_reduce(tf.distribute.ReduceOp.SUM, total)


def ghost_moments(x, size: int, mask=None):
    """Mean and biased variance of each channel within the ghost batch that an example belongs to.

    A batch of B examples is cut, in order, into `max(1, B // size)` ghosts. A remainder is shared out among
    them, one example each, so the sizes differ by at most one and no ghost is smaller than asked.

    Args:
        x: `(batch, ..., channels)`.
        size: examples in a ghost, at least.
        mask: as `moments`'.

    Returns:
        Two float32 tensors `(batch, 1, ..., channels)`, to be taken from and divided into `x`.
    """
    x = ops.cast(x, "float32")
    batch = ops.shape(x)[0]  # a number where it is known, as it must be for XLA
    number = max(batch // size, 1) if isinstance(batch, int) else ops.maximum(batch // size, 1)
    ghost = (ops.arange(batch, dtype="int32") * number) // batch
    if mask is not None:
        mask = broadcast_mask(x, mask)
    count = _of_each_ghost(ops.ones_like(x[..., :1]), ghost, number, mask)
    count = ops.maximum(count, 1.0)
    mean = _of_each_ghost(x, ghost, number, mask) / count
    return mean, _of_each_ghost(ops.square(x - mean), ghost, number, mask) / count


def _of_each_ghost(x, ghost, number, mask):
    """Sum over an example's ghost, for each example: `(batch, 1, ..., channels)`."""
    x = x if mask is None else ops.where(mask, x, 0.0)
    inner = tuple(range(1, len(x.shape) - 1))
    sums = ops.segment_sum(ops.sum(x, inner) if inner else x, ghost, num_segments=number)
    taken = ops.take(sums, ghost, axis=0)
    return ops.expand_dims(taken, inner) if inner else taken
