"""One model on several devices: how `--distribution` splits a batch, and which process writes.

mirrored        TensorFlow's MirroredStrategy: the GPUs of one machine, or the logical CPUs that TensorFlow
                was told to make
data_parallel   Keras' own on JAX: the devices of one machine, or of several processes on several machines,
                which find each other by KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID

Either way the batch size is that of the whole batch, each replica computes an equal, contiguous part of it,
and the gradients are averaged: a step is that of a single device. What may differ is what a batch norm sees,
see `Replicas.batch_norm_examples`.

Only the first process writes. The others do all the rest, since on JAX they compute each value together.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bnhead.errors import REPORTED, UsageError
from bnhead.runs.directory import RunDirectory
from bnhead.training.config import TrainConfig

EVALUATION_BATCH = 256
_PREFIX = "KERAS_DISTRIBUTION_"
_VARIABLES = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
_SEVERAL_MACHINES = (
    "one model on several machines is KERAS_BACKEND=jax and --distribution=data_parallel, see docs/scale.md"
)


@dataclass(frozen=True)
class Replicas:
    """The copies of the model that share each batch.

    Attributes:
        number: how many there are, in all processes.
        processes: how many processes there are.
        process: the number of this one, from 0.
        synchronized: whether batch norms normalise by the whole batch, and not by their replica's part.
        strategy: TensorFlow's, Keras' distribution on JAX, or None for a single device.
    """

    number: int = 1
    processes: int = 1
    process: int = 0
    synchronized: bool = True
    strategy: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.process == 0

    @property
    def evaluation_batch(self) -> int:
        """Examples of an evaluation batch: at least 256, and a multiple of the replicas."""
        return -(-EVALUATION_BATCH // self.number) * self.number

    def batch_norm_examples(self, batch_size: int) -> int:
        """How many examples a batch norm's statistics are of in training. It changes the question."""
        return batch_size if self.synchronized else batch_size // self.number

    def describe(self) -> dict:
        """What the environment's record says of them."""
        of = "the whole batch" if self.synchronized else "each replica's part of the batch"
        return {"replicas": self.number, "processes": self.processes, "batch_statistics_of": of}

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Where all of a run happens: what is computed on JAX is distributed."""
        with self.strategy.scope() if _on_jax() and self.strategy else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Where the model is built and compiled, so that each replica has its copy.

        Without synchronised statistics each replica's moving averages would go their own way on TensorFlow,
        and those of the first be saved. Here all hold their mean.
        """
        with contextlib.ExitStack() as scopes:
            if self.strategy and not _on_jax():
                scopes.enter_context(self.strategy.scope())
                if not self.synchronized:
                    scopes.enter_context(tf.variable_creator_scope(_averaged))
            yield

    def synchronize(self, model: keras.Model) -> None:
        """Makes every batch norm of a model that is just built normalise by the whole batch.

        Those of `bnhead.layers` and Keras' own, in the head and in the backbone. On JAX they do already.
        """
        if self.strategy and not _on_jax():
            model.jit_compile = False  # XLA compiles no sums over replicas
            for layer in model._flatten_layers():
                if self.synchronized and hasattr(layer, "synchronized"):
                    layer.synchronized = True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Where this process computes without the others: to make a copy of the model and save it, say."""
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(distribution)

    def part(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """This process's part of each batch, whose size must be a multiple of the processes."""
        if self.processes == 1:
            return data

        def own(tensor):
            share = tf.shape(tensor)[0] // self.processes
            return tensor[self.process * share : (self.process + 1) * share]

        return data.map(lambda *batch: tf.nest.map_structure(own, batch)).prefetch(1)

    def evaluation(self, data: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """This process's part of batches `(x, y)` of `size` examples in all, on which Keras evaluates.

        With several replicas the last batch is filled up, with weights that make every example count once.

        Args:
            data: batches of `evaluation_batch` examples, the last of them perhaps smaller.
            size: number of examples.
        """
        return self.part(data if self.number == 1 else filled(data, size, self.evaluation_batch))

    def directory(self, path: str) -> RunDirectory:
        """The run directory: the first process's, or one in which nothing is written."""
        return RunDirectory(path) if self.first else Unwritten(path)

    def bytes_of_first(self, work: Callable[[], bytes]) -> bytes:
        """What `work()` returns in the first process, where alone it is called. Must be called by all."""
        if self.processes == 1:
            return work()
        return _broadcast(work() if self.first else b"")

    def of_first(self, work: Callable[[], Any]) -> Any:
        """What `work()` returns in the first process, where alone it is called. Must be called by all.

        Args:
            work: returns something that JSON can hold; where it raises one of our errors, all raise it.
        """
        if self.processes == 1:
            return work()
        answer: dict[str, Any] = {}
        if self.first:
            try:
                answer["value"] = work()
            except REPORTED as error:
                answer = {"kind": type(error).__name__, "error": str(error)}
        answer = json.loads(_broadcast(json.dumps(answer).encode()))
        if "error" in answer:
            raise next(kind for kind in REPORTED if kind.__name__ == answer["kind"])(answer["error"])
        return answer["value"]


class Unwritten(RunDirectory):
    """A run directory that another process writes."""

    def begin(self, settings):
        """Nothing."""

    def replace(self, name, write):
        """Nothing."""

    def say(self, line):
        """Nothing: the first process says it."""


def join(config: TrainConfig) -> bool:
    """Meets the other processes of a run on several machines; whether this is the first.

    Must come before anything is computed on JAX. A second call finds them met.

    Raises:
        UsageError: a distribution that the backend does not have, variables that are missing or wrong,
            processes that are not there.
    """
    _check_backend(config)
    number, process = _processes(config)
    if _on_jax():
        with contextlib.suppress(RuntimeError):  # TensorFlow feeds here; it shall take no memory of a GPU's
            tf.config.set_visible_devices([], "GPU")
    if number > 1:
        import jax

        if not jax.distributed.is_initialized():
            try:
                keras.distribution.initialize()
            except (RuntimeError, ValueError) as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                raise UsageError(
                    f"distribution: process {process} of {number} meets no others: {reason}"
                ) from None
    return process == 0


def find(config: TrainConfig) -> Replicas:
    """The replicas that a config asks for, on the devices that there are.

    Raises:
        UsageError: also a batch that they cannot share equally.
    """
    join(config)
    if config.distribution == "none":
        return Replicas()
    if config.distribution == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = _mirrored(tuple(device.name for device in devices)) if len(devices) > 1 else None
        found = Replicas(len(devices), synchronized=config.sync_bn or len(devices) == 1, strategy=strategy)
    else:
        import jax

        number = len(keras.distribution.list_devices())
        strategy = keras.distribution.DataParallel(auto_shard_dataset=False) if number > 1 else None
        found = Replicas(number, jax.process_count(), jax.process_index(), strategy=strategy)
    _check_batch(config, found)
    return found


def filled(data: tf.data.Dataset, size: int, batch_size: int) -> tf.data.Dataset:
    """Batches of one size, `(x, y, weights)`: the last is filled up with repetitions that weigh 0.

    Keras divides a weighted loss by all examples, those that weigh 0 included. So the real ones weigh a
    little more than 1: the mean over all of them is then that over the real ones.

    Args:
        data: batches `(x, y)` of `batch_size` examples, the last perhaps smaller.
        size: number of examples.
        batch_size: examples of each batch.
    """
    weight = -(-size // batch_size) * batch_size / size

    def fill(x, y):
        there = tf.shape(tf.nest.flatten(y)[0])[0]
        rows = tf.range(batch_size)
        taken = tf.nest.map_structure(lambda t: tf.gather(t, tf.minimum(rows, there - 1)), (x, y))
        return *taken, tf.where(rows < there, weight, 0.0)

    return data.map(fill).prefetch(1)


def _check_backend(config: TrainConfig) -> None:
    backend = keras.backend.backend()
    if config.distribution == "mirrored" and backend != "tensorflow":
        there = "--distribution=data_parallel is its counterpart there" if _on_jax() else "set KERAS_BACKEND"
        raise UsageError(f"distribution mirrored is TensorFlow's, and Keras runs on {backend}: {there}")
    if config.distribution == "data_parallel" and backend != "jax":
        there = "set KERAS_BACKEND=jax, or, for the GPUs of one machine, --distribution=mirrored"
        raise UsageError(f"distribution data_parallel needs JAX, and Keras runs on {backend}: {there}")
    workers = _workers(os.environ.get("TF_CONFIG", ""))
    if config.distribution == "mirrored" and workers > 1:
        raise UsageError(f"TF_CONFIG names {workers} workers, and {_SEVERAL_MACHINES}")


def _workers(tf_config: str) -> int:
    """How many processes train together by TensorFlow's variable."""
    try:
        cluster = json.loads(tf_config or "{}").get("cluster", {})
        return len(cluster.get("worker", [])) + len(cluster.get("chief", []))
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"TF_CONFIG is not the JSON that TensorFlow reads: {tf_config[:60]!r}") from None


def _processes(config: TrainConfig) -> tuple[int, int]:
    """How many processes there are and which one this is, by the environment."""
    given = {name: os.environ[_PREFIX + name] for name in _VARIABLES if os.environ.get(_PREFIX + name)}
    if not given:
        return 1, 0
    missing = [_PREFIX + name for name in _VARIABLES if name not in given]
    if missing:
        there = ", ".join(_PREFIX + name for name in given)
        raise UsageError(f"{' and '.join(missing)} must be set too, since {there} is")
    for name in _VARIABLES[1:]:
        if not given[name].isdecimal():
            raise UsageError(f"{_PREFIX}{name} must be a whole number, got {given[name]!r}")
    number, process = int(given["NUM_PROCESSES"]), int(given["PROCESS_ID"])
    if process >= number:
        raise UsageError(f"{_PREFIX}PROCESS_ID must be less than the {number} processes, got {process}")
    if number > 1 and config.distribution != "data_parallel":
        raise UsageError(
            f"{_PREFIX}NUM_PROCESSES is {number} and distribution {config.distribution}: {_SEVERAL_MACHINES}"
        )
    return number, process


def _check_batch(config: TrainConfig, replicas: Replicas) -> None:
    share, rest = divmod(config.batch_size, replicas.number)
    if rest or not share:
        nearest = f"{max(1, share) * replicas.number} or {(max(1, share) + 1) * replicas.number}"
        raise UsageError(
            f"batch_size must divide by the {replicas.number} replicas, got {config.batch_size}; "
            f"{nearest} would"
        )
    if not replicas.synchronized and share < 2:
        raise UsageError(
            "batch_size must leave each replica at least 2 images, since a batch norm has nothing to learn "
            f"from one, got {config.batch_size} for {replicas.number} replicas"
        )
    ghosts = [token.number for token in config.parsed_head.tokens if token.name == "gbn"]
    if config.distribution == "mirrored" and any(size > share for size in ghosts):
        raise UsageError(
            f"head {config.head!r}: ghosts of {max(ghosts)} do not fit into the {share} images of a replica"
        )


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """The one strategy of a process: two on the same devices get in each other's way (TensorFlow 2.21)."""
    return tf.distribute.MirroredStrategy(devices)


def _averaged(create: Callable, **options: Any) -> tf.Variable:
    """Makes a variable; one that a layer assigns to in training becomes the mean over the replicas."""
    untrained = not options.get("trainable", True) and tf.as_dtype(options.get("dtype")).is_floating
    if untrained and options.get("aggregation") == tf.VariableAggregation.NONE:
        options["aggregation"] = tf.VariableAggregation.MEAN
    return create(**options)


def _broadcast(content: bytes) -> bytes:
    """The first process's bytes, in every process."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    if not size:
        return b""
    sized = np.frombuffer(content.ljust(size, b"\0")[:size], np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(sized).astype(np.uint8))


def _on_jax() -> bool:
    return keras.backend.backend() == "jax"
