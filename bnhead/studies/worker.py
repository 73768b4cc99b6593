"""The jobs of a study's worker: a run, the pace of a run, a look at the data. A worker does many of them.

TensorFlow is imported and the data opened once per worker, and runs that differ only in the seed share a
traced graph. A study fixes the number of threads, because another number gives other bits; it is set by
environment variables that a plain `bnhead train` obeys too.
"""

import dataclasses
import functools
import gc
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from bnhead.census import keys
from bnhead.devices import startup
from bnhead.studies.plan import THREADS
from bnhead.training.config import TrainConfig

ENVIRONMENT = {"TF_NUM_INTRAOP_THREADS": str(THREADS), "TF_NUM_INTEROP_THREADS": str(THREADS)}
_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # several small runs share one

Report = Callable[[dict[str, Any]], None]


def train_one(config: TrainConfig, report: Report) -> dict[str, Any]:
    """Does one run.

    Args:
        config: the run's settings and directory.
        report: gets `share`, the share of the steps that are done, every second; from the second time on also
            `start`, the seconds until the first step was done, and `steps`, those of all steps at their pace.

    Returns:
        `status`, `seconds`, the primary metrics of the result, and `dead`, the share of dead units of the
        first layer counted; None for unknown values.
    """
    keras = start_keras()
    from bnhead.runs.directory import RunDirectory
    from bnhead.training.logs import Share
    from bnhead.training.run import train

    reuse = _reuse()
    if not reuse.holds_model(config):
        # else the names of layers count on from the previous run; it also discards what is compiled
        keras.backend.clear_session()
    result = train(config, [Share(_with_pace(report))], reuse)
    gc.collect()  # a model of Keras' is freed by this alone
    return outcome_of(result, RunDirectory(config.directory))


def outcome_of(result: Mapping[str, Any], directory: Any) -> dict[str, Any]:
    """What `train_one` returns of a finished run.

    Args:
        result: the content of its `result.json`.
        directory: its `RunDirectory`.
    """
    environment = directory.read("environment.json") or {}
    figures = {key: result.get(key) for key in ("status", "test_accuracy", "test_r2")}
    dead = [result.get(keys.key(layer, "dataset")) for layer in keys.layers_of(result, "dataset")]
    return {**figures, "dead": next(iter(dead), None), "seconds": environment.get("seconds")}


def _with_pace(report: Report) -> Callable[[float], None]:
    """Reports each share of the steps with the pace so far."""
    begun, first = time.perf_counter(), []

    def tell(share: float) -> None:
        now = time.perf_counter()
        if not first:
            first.extend((now, share))
            return report({"share": share})
        steps = (now - first[0]) / (share - first[1])
        return report({"share": share, "start": first[0] - begun, "steps": steps})

    return tell


def pace(config: TrainConfig, report: Report) -> dict[str, Any]:
    """Does a run's first steps to estimate its duration.

    Args:
        config: the run's settings; its directory is not used.
        report: not used.

    Returns:
        `seconds` of all its epochs, without tracing, compiling and the features of a frozen backbone; None if
        it cannot be estimated.
    """
    start_keras()
    from bnhead.training.estimate import estimate

    with tempfile.TemporaryDirectory() as folder:
        estimated = estimate(dataclasses.replace(config, workdir=f"{folder}/run"))
    seconds = estimated["seconds"] - estimated["seconds_compiling"] - estimated["seconds_extracting"]
    return {"seconds": seconds if math.isfinite(seconds) else None}


def look_at_data(config: TrainConfig, report: Report) -> dict[str, Any]:
    """The data's name, sizes, fingerprints and number of classes, None for numbers as targets.

    If the config leaves settings to a measurement, also `choices`: their `fields`, values by name, and
    `lines`, a line about each.

    Raises:
        DataError: the data set does not exist or cannot be trained on.
    """
    start_keras()
    from bnhead.devices.replicas import Replicas
    from bnhead.training.choices import is_open
    from bnhead.training.run import prepare_training

    data, facts = _reuse().images(config), {}
    if is_open(config):
        choices = prepare_training(config, Replicas(), _reuse()).choices
        facts["choices"] = {"fields": dict(choices.fields), "lines": list(choices.lines)}
    return {
        "name": data.name,
        "train": data.train.size,
        "test": data.test.size,
        "train_sha256": data.train.fingerprint(),
        "test_sha256": data.test.fingerprint(),
        "classes": len(data.classes) or None,
        **facts,
    }


@functools.cache
def _reuse() -> Any:
    """The data and the traced graph that the runs of this process share."""
    from bnhead.training.build import Reuse

    return Reuse()


@functools.cache
def start_keras() -> Any:
    """Keras, imported quietly, on one thread."""
    os.environ.update(ENVIRONMENT)
    for name, value in _SHARED_GPU.items():
        os.environ.setdefault(name, value)
    # JAX keeps compiled programs for the other processes and for the next study
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "bnhead" / "jax"))
    with startup.quiet():
        import keras
        import tensorflow as tf

        from bnhead.devices.environment import device_names

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
        device_names()
        tf.get_logger().setLevel("ERROR")  # it warns about tracing one model after another
        tf.zeros(1)  # starts the runtime, which prints messages

        from bnhead.training import run  # noqa: F401
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)
    gc.collect()
    gc.freeze()  # modules are never freed, and looking at their objects after each run takes 0.2 s
    return keras
