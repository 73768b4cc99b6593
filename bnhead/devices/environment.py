"""The environment of a run: versions, devices, threads. It may differ between two runs of one config."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

import keras
import tensorflow as tf

from bnhead.runs.provenance import PACKAGES, source_sha256
from bnhead.version import __version__

_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def device_names() -> list[str]:
    """Names of the GPUs, on JAX those of all processes; `["CPU"]` without a GPU."""
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"] or ["CPU"]
    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details
    return [details(gpu).get("device_name", gpu.name) for gpu in gpus] or ["CPU"]


def cpu_has_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool | None:
    """Whether the CPU has bfloat16 instructions, according to Linux; None on other systems.

    Args:
        cpuinfo: path of Linux' report. Its flags are `avx512_bf16` and `amx_bf16` on x86, `bf16` on ARM.
    """
    try:
        lines = pathlib.Path(cpuinfo).read_text().splitlines()
    except OSError:
        return None
    flags = [
        line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))
    ]
    return any(flag.endswith("bf16") for flag in flags[0]) if flags else None


def describe_environment() -> dict:
    """Time, versions, backend, devices, cores and TensorFlow's threads (0: it chooses) of this process."""
    threading = tf.config.threading
    threads = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    texts = [os.environ.get(name, "") for name in _THREADS]
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "bnhead": __version__,
        "source_sha256": source_sha256(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "backend": keras.backend.backend(),
        "backend_version": importlib.metadata.version(keras.backend.backend()),
        "devices": device_names(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": [
            n or (int(text) if text.isdigit() else 0) for n, text in zip(threads, texts, strict=True)
        ],
        "platform": platform.platform(),
        "host": platform.node(),
    }


def prepare_devices(*, deterministic: bool) -> None:
    """Sets up the devices of this process: GPU memory is allocated as needed, not all at once.

    Args:
        deterministic: whether operations must give the same bits each time, also on a GPU. This holds for the
            rest of the process.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # the process has used its GPUs, which are set up already
            break
    if deterministic:
        tf.config.experimental.enable_op_determinism()
