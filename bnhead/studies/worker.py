"""What a worker of a study does: a run, on one thread, in a process that does many.

TensorFlow is imported once for all of them, the data is opened once, and runs that differ in the seed alone
share a traced graph. The number of threads is part of what a study fixes, since another number gives other
bits; it is set by the variables that also a plain `bnhead train` obeys.
"""

import dataclasses
import functools
import gc
import math
import os
import tempfile
from collections.abc import Callable
from typing import Any

from bnhead.devices import startup
from bnhead.studies.plan import THREADS
from bnhead.training.config import TrainConfig

ENVIRONMENT = {"TF_NUM_INTRAOP_THREADS": str(THREADS), "TF_NUM_INTEROP_THREADS": str(THREADS)}
_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # several small runs on one

Tell = Callable[[dict[str, Any]], None]


def train_one(config: TrainConfig, tell: Tell) -> dict[str, Any]:
    """Does one run.

    Args:
        config: the run's settings and place.
        tell: is told `{"epoch": number, "epochs": number}` after each epoch.

    Returns:
        `status`, `seconds` and the result's first figures.
    """
    keras = _started()
    from bnhead.runs.directory import RunDirectory
    from bnhead.training.run import train

    keras.backend.clear_session()  # names of layers are counted up over a process' life
    gc.collect()
    lines = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: tell({"epoch": epoch + 1, "epochs": config.epochs})
    )
    result = train(config, [lines], _reuse())
    environment = RunDirectory(config.directory).read("environment.json") or {}
    figures = {key: result.get(key) for key in ("status", "test_accuracy", "test_r2")}
    return {**figures, "seconds": environment.get("seconds")}


def pace(config: TrainConfig, tell: Tell) -> dict[str, Any]:
    """Does a run's first steps, to see how long it would take.

    Args:
        config: the run's settings; its place is not used.
        tell: not used.

    Returns:
        `seconds` of all its epochs, without what comes before the first step; None where that cannot be told.
    """
    _started()
    from bnhead.training.estimate import estimate

    with tempfile.TemporaryDirectory() as place:
        seconds = estimate(dataclasses.replace(config, workdir=f"{place}/run"))["seconds"]
    return {"seconds": seconds if math.isfinite(seconds) else None}


def look_at_data(config: TrainConfig, tell: Tell) -> dict[str, Any]:
    """The data's name, sizes, fingerprints and number of classes, which is None where it has numbers.

    Raises:
        DataError: the data set is not there, or is not what training needs.
    """
    _started()
    data = _reuse().data(config)
    return {
        "name": data.name,
        "train": data.train.size,
        "test": data.test.size,
        "train_sha256": data.train.fingerprint(),
        "test_sha256": data.test.fingerprint(),
        "classes": len(data.classes) or None,
    }


@functools.cache
def _reuse() -> Any:
    """What the runs of this process share."""
    from bnhead.training.build import Reuse

    return Reuse()


@functools.cache
def _started() -> Any:
    """Keras, imported quietly, on one thread."""
    os.environ.update(ENVIRONMENT)
    for name, value in _SHARED_GPU.items():
        os.environ.setdefault(name, value)
    with startup.quiet():
        import keras
        import tensorflow as tf

        from bnhead.devices.environment import device_names

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
        device_names()
        tf.get_logger().setLevel("ERROR")  # a worker traces one model after another, which it warns of
        tf.zeros(1)  # starts the runtime, which has things to say
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)
    return keras
