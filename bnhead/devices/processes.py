"""One model trained by several processes on JAX: how they meet, agree and leave writing to the first.

They find each other by KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID, or by JAX's own
detection of a cluster: SLURM, Open MPI, Kubernetes, TPU pods. On JAX they compute each value together, so all
of them do everything except writing.
"""

import contextlib
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

SEVERAL_MACHINES = (
    "one model on several machines is KERAS_BACKEND=jax and --distribution=data_parallel, see docs/scale.md"
)
_PREFIX = "KERAS_DISTRIBUTION_"
_VARIABLES = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        number: how many there are.
        index: of this one, from 0.
    """

    number: int = 1
    index: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def directory(self, path: str) -> RunDirectory:
        """The run's directory, which only the first process writes."""
        return RunDirectory(path) if self.number == 1 else SharedDirectory(path, self)

    def rows(self, batch_size: int) -> slice:
        """The rows of each batch that are this process's. They are consecutive.

        JAX joins the processes' parts in their order, so the joined batch is that of a single process row for
        row, and a ghost batch norm cuts it at the same rows.
        """
        share = batch_size // self.number
        return slice(self.index * share, (self.index + 1) * share)

    def part(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """This process's part of each batch, whose size must be a multiple of the processes."""
        if self.number == 1:
            return data

        def slice_of(tensor):
            size = tf.shape(tensor)[0] // self.number
            return tensor[self.index * size : (self.index + 1) * size]

        return data.map(lambda *batch: tf.nest.map_structure(slice_of, batch)).prefetch(1)

    def agree(self, compute: Callable[[], Any]) -> Any:
        """`compute()` of the first process, in every process. All processes must call this.

        Args:
            compute: called in the first process only. It returns data for JSON; an error of `REPORTED` is
                raised in every process.
        """
        if self.number == 1:
            return compute()
        answer: dict[str, Any] = {}
        if self.first:
            try:
                answer["value"] = compute()
            except REPORTED as error:
                answer = {"type": type(error).__name__, "error": str(error)}
        answer = json.loads(broadcast(json.dumps(answer).encode()))
        if "error" in answer:
            raise next(error for error in REPORTED if error.__name__ == answer["type"])(answer["error"])
        return answer["value"]


class SharedDirectory(RunDirectory):
    """A run directory that the first process reads and writes for all."""

    def __init__(self, path: str, processes: Processes):
        super().__init__(path)
        self._processes, self._own = processes, RunDirectory(path)
        self.writable = processes.first

    def admit(self, settings, *, overwrite=False):
        return self._processes.agree(lambda: self._own.admit(settings, overwrite=overwrite))

    @contextlib.contextmanager
    def claimed(self, settings, *, overwrite=False) -> Iterator[dict | None]:
        with contextlib.ExitStack() as stack:
            claim = self._own.claimed(settings, overwrite=overwrite)
            yield self._processes.agree(lambda: stack.enter_context(claim))

    def begin(self, settings):
        if self.writable:
            super().begin(settings)

    def replace(self, name, write):
        if self.writable:
            super().replace(name, write)

    def log(self, line):
        if self.writable:
            super().log(line)

    def agree_on_bytes(self, read):
        return broadcast(read() if self.writable else b"")


def join_processes(distribution: str) -> Processes:
    """Connects the processes of a run on several machines. A second call returns the same.

    Must come before anything is computed on JAX.

    Args:
        distribution: a name of `TrainConfig.distribution`.

    Raises:
        UsageError: the backend does not have this distribution, variables are missing or wrong, or processes
            do not answer.
    """
    backend = keras.backend.backend()
    if distribution == "mirrored" and backend != "tensorflow":
        on_jax = "--distribution=data_parallel is its counterpart there"
        hint = on_jax if backend == "jax" else "set KERAS_BACKEND"
        raise UsageError(f"distribution mirrored is TensorFlow's, and Keras runs on {backend}: {hint}")
    if distribution == "data_parallel" and backend != "jax":
        hint = "set KERAS_BACKEND=jax, or, for the GPUs of one machine, --distribution=mirrored"
        raise UsageError(f"distribution data_parallel needs JAX, and Keras runs on {backend}: {hint}")
    workers = _tensorflow_workers()
    if distribution == "mirrored" and workers > 1:
        raise UsageError(f"TF_CONFIG names {workers} workers, and {SEVERAL_MACHINES}")
    processes = _named_processes(distribution)
    if backend == "jax":
        with contextlib.suppress(RuntimeError):  # TensorFlow only feeds data; it must not take GPU memory
            tf.config.set_visible_devices([], "GPU")
    if processes.number > 1:
        import jax

        if not jax.distributed.is_initialized():
            try:
                keras.distribution.initialize()
            except (RuntimeError, ValueError) as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                raise UsageError(
                    f"distribution: process {processes.index} of {processes.number} meets no others: {reason}"
                ) from None
    return processes


def _tensorflow_workers() -> int:
    """The number of processes that TensorFlow's variable TF_CONFIG names."""
    content = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(content or "{}").get("cluster", {})
        return len(cluster.get("worker", [])) + len(cluster.get("chief", []))
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"TF_CONFIG is not the JSON that TensorFlow reads: {content[:60]!r}") from None


def _named_processes(distribution: str) -> Processes:
    """The processes that the environment's variables name."""
    values = {name: os.environ[_PREFIX + name] for name in _VARIABLES if os.environ.get(_PREFIX + name)}
    if not values:
        return _detected_processes() if distribution == "data_parallel" else Processes()
    missing = [_PREFIX + name for name in _VARIABLES if name not in values]
    if missing:
        present = ", ".join(_PREFIX + name for name in values)
        raise UsageError(f"{' and '.join(missing)} must be set too, since {present} is")
    for name in _VARIABLES[1:]:
        if not values[name].isdecimal():
            raise UsageError(f"{_PREFIX}{name} must be a whole number, got {values[name]!r}")
    number, index = int(values["NUM_PROCESSES"]), int(values["PROCESS_ID"])
    if index >= number:
        raise UsageError(f"{_PREFIX}PROCESS_ID must be less than the {number} processes, got {index}")
    if number > 1 and distribution != "data_parallel":
        raise UsageError(
            f"{_PREFIX}NUM_PROCESSES is {number} and distribution {distribution}: {SEVERAL_MACHINES}"
        )
    return Processes(number, index)


def _detected_processes() -> Processes:
    """The processes of the cluster that JAX detects in the environment; one process without a cluster.

    Only for a run that asks for several devices: in a job of a cluster, each task may do a run by itself.
    """
    from jax._src.clusters import ClusterEnv  # JAX shows what it detects only where it connects, or fails to

    for cluster in ClusterEnv._cluster_types:  # in the order of `jax.distributed.initialize`
        if not cluster.opt_in_only_method and cluster.is_env_present():
            try:
                return Processes(cluster.get_process_count(), cluster.get_process_id())
            except (KeyError, ValueError, OSError) as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                raise UsageError(
                    f"distribution data_parallel: the cluster {cluster.name} cannot be read ({reason}); set "
                    f"{' and '.join(_PREFIX + name for name in _VARIABLES)}"
                ) from None
    return Processes()


def broadcast(content: bytes) -> bytes:
    """The first process's bytes, in every process."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    if not size:
        return b""
    padded = np.frombuffer(content.ljust(size, b"\0")[:size], np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(padded).astype(np.uint8))
