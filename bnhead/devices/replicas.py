"""One model on several devices: how `--distribution` splits a batch.

mirrored        TensorFlow's MirroredStrategy: the GPUs of one machine, or its logical CPUs
data_parallel   Keras' distribution on JAX: the devices of one machine, or of several (`devices.processes`)

Either way the batch size is that of the whole batch, each replica computes an equal, contiguous part of it,
and the gradients are averaged: a step is that of a single device. A batch norm may see only a part of the
batch, see `Replicas.batch_norm_examples`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from bnhead.devices.processes import Processes, join_processes
from bnhead.errors import UsageError

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Replicas:
    """The copies of the model that share each batch.

    Attributes:
        number: of all processes together.
        processes: the processes of the run.
        synchronized: whether batch norms normalise by the whole batch, or each by its replica's part.
        strategy: TensorFlow's, Keras' distribution on JAX, or None for a single device.
    """

    number: int = 1
    processes: Processes = Processes()  # noqa: RUF009 - it is frozen
    synchronized: bool = True
    strategy: Any = None

    @property
    def evaluation_batch(self) -> int:
        """Examples of an evaluation batch: at least 256, and a multiple of the replicas."""
        return -(-EVALUATION_BATCH // self.number) * self.number

    def batch_norm_examples(self, batch_size: int) -> int:
        """Number of examples over which a batch norm computes its statistics in training."""
        return batch_size if self.synchronized else batch_size // self.number

    def describe(self) -> dict:
        """The entries of `environment.json` about replicas."""
        scope = "the whole batch" if self.synchronized else "each replica's part of the batch"
        return {"replicas": self.number, "processes": self.processes.number, "batch_statistics_of": scope}

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """A context for the whole run: JAX distributes the computations in it."""
        with self.strategy.scope() if _on_jax() and self.strategy else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """A context for building and compiling the model, which gives each replica its copy.

        Without synchronised statistics, TensorFlow would let the moving averages of the replicas drift apart
        and save those of the first. In this context all hold their mean.
        """
        with contextlib.ExitStack() as scopes:
            if self.strategy and not _on_jax():
                scopes.enter_context(self.strategy.scope())
                if not self.synchronized:
                    scopes.enter_context(tf.variable_creator_scope(_create_averaged))
            yield

    def synchronize(self, model: keras.Model) -> None:
        """Makes every batch norm of a new model normalise by the whole batch.

        This covers those of `bnhead.layers` and of Keras, in the head and in the backbone. On JAX they always
        do.
        """
        if self.strategy and not _on_jax():
            model.jit_compile = False  # XLA compiles no sums over replicas
            for layer in model._flatten_layers():
                if self.synchronized and hasattr(layer, "synchronized"):
                    layer.synchronized = True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A context in which this process computes without the others, such as for saving the model."""
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(distribution)

    def evaluation(self, data: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """This process's part of evaluation batches `(x, y)`.

        With several replicas the last batch is padded, with weights that make every example count once.

        Args:
            data: batches of `evaluation_batch` examples; the last one may be smaller.
            size: number of examples.
        """
        if self.number == 1:
            return data
        return self.processes.part(padded(data, size, self.evaluation_batch))


def open_replicas(
    distribution: str, batch_size: int, *, sync_bn: bool = True, ghost_sizes: Sequence[int] = ()
) -> Replicas:
    """The replicas of a distribution on the available devices.

    Args:
        distribution: a name of `TrainConfig.distribution`.
        batch_size: of the whole batch.
        sync_bn: whether batch norms of mirrored replicas normalise by the whole batch.
        ghost_sizes: the ghost batch sizes of the head's `gbn` tokens.

    Raises:
        UsageError: as `join_processes`, or the replicas cannot share the batch equally.
    """
    processes = join_processes(distribution)
    if distribution == "none":
        return Replicas()
    if distribution == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        number, synchronized = len(devices), sync_bn or len(devices) == 1
        strategy = mirrored_strategy(tuple(device.name for device in devices)) if number > 1 else None
    else:
        import jax

        processes = Processes(jax.process_count(), jax.process_index())
        number, synchronized = len(keras.distribution.list_devices()), True
        strategy = keras.distribution.DataParallel(auto_shard_dataset=False) if number > 1 else None
    check_shares(batch_size, number, synchronized, ghost_sizes if distribution == "mirrored" else ())
    return Replicas(number, processes, synchronized, strategy)


def check_shares(batch_size: int, number: int, synchronized: bool, ghost_sizes: Sequence[int] = ()) -> None:
    """Checks that replicas can share a batch.

    Args:
        batch_size: of the whole batch.
        number: of replicas.
        synchronized: whether batch norms normalise by the whole batch.
        ghost_sizes: ghost batch sizes that must fit into the part of a replica.

    Raises:
        UsageError: they cannot.
    """
    share, remainder = divmod(batch_size, number)
    if remainder or not share:
        nearest = f"{max(1, share) * number} or {(max(1, share) + 1) * number}"
        raise UsageError(
            f"batch_size must divide by the {number} replicas, got {batch_size}; {nearest} would"
        )
    if not synchronized and share < 2:
        raise UsageError(
            "batch_size must leave each replica at least 2 images, since a batch norm has nothing to learn "
            f"from one, got {batch_size} for {number} replicas"
        )
    if any(size > share for size in ghost_sizes):
        raise UsageError(
            f"batch_size must leave each replica at least the {max(ghost_sizes)} images of a ghost batch of "
            f"the head, got {batch_size} for {number} replicas"
        )


def padded(data: tf.data.Dataset, size: int, batch_size: int) -> tf.data.Dataset:
    """Batches of equal size, `(x, y, weights)`: the last one is padded with repetitions of weight 0.

    Keras divides a weighted loss by the number of all examples, including those of weight 0. So the real ones
    get a weight slightly above 1, which makes the mean over all examples that over the real ones.

    Args:
        data: batches `(x, y)` of `batch_size` examples; the last one may be smaller.
        size: number of examples.
        batch_size: examples of each batch.
    """
    weight = -(-size // batch_size) * batch_size / size

    def pad(x, y):
        examples = tf.shape(tf.nest.flatten(y)[0])[0]
        rows = tf.range(batch_size)
        batch = tf.nest.map_structure(lambda t: tf.gather(t, tf.minimum(rows, examples - 1)), (x, y))
        return *batch, tf.where(rows < examples, weight, 0.0)

    return data.map(pad).prefetch(1)


@functools.cache
def mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """The one strategy of a process: two on the same devices disturb each other (TensorFlow 2.21)."""
    return tf.distribute.MirroredStrategy(devices)


def _create_averaged(create: Callable, **options: Any) -> tf.Variable:
    """Makes a variable; if a layer assigns to it in training, it becomes the mean over the replicas."""
    untrained = not options.get("trainable", True) and tf.as_dtype(options.get("dtype")).is_floating
    if untrained and options.get("aggregation") == tf.VariableAggregation.NONE:
        options["aggregation"] = tf.VariableAggregation.MEAN
    return create(**options)


def _on_jax() -> bool:
    return keras.backend.backend() == "jax"
