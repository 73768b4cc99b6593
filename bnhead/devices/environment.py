"""What a run ran on, and what may differ between two runs of one config: versions, devices, threads."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

import keras
import tensorflow as tf

from bnhead.runs.provenance import source_sha256
from bnhead.version import __version__

_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
# Where one of these changes while a run is stopped, its figures may end in other digits.
DECISIVE = ("python", "bnhead", *_PACKAGES, "backend", "backend_version", "devices", "cores", "threads")


def devices() -> list[str]:
    """Names of the GPUs, or of the CPU where there is none; on JAX those of all processes."""
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"] or ["CPU"]
    found = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in found] or [
        "CPU"
    ]


def cpu_has_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool | None:
    """Whether the CPU has bfloat16 instructions, by what Linux reports of it; None elsewhere.

    Args:
        cpuinfo: path of that report. Its flags are `avx512_bf16` and `amx_bf16` on x86, `bf16` on ARM.
    """
    try:
        lines = pathlib.Path(cpuinfo).read_text().splitlines()
    except OSError:
        return None
    flags = [
        line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))
    ]
    return any(flag.endswith("bf16") for flag in flags[0]) if flags else None


def environment() -> dict:
    """Time, versions, backend, devices, cores and TensorFlow's threads (0: it chooses) of this process."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "bnhead": __version__,
        "source_sha256": source_sha256(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        "backend": keras.backend.backend(),
        "backend_version": importlib.metadata.version(keras.backend.backend()),
        "devices": devices(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": _threads(),
        "platform": platform.platform(),
        "host": platform.node(),
    }


def _threads() -> list[int]:
    """Of an operation, and between operations, by TensorFlow's settings or else by its variables."""
    threads = tf.config.threading
    given = threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()
    texts = [os.environ.get(name, "") for name in _THREADS]
    return [n or (int(text) if text.isdigit() else 0) for n, text in zip(given, texts, strict=True)]


def changed(before: dict, now: dict) -> str:
    """What is decisive and differs between two environments, in words; empty where nothing does."""
    keys = [key for key in DECISIVE if key in before and before[key] != now[key]]
    return ", ".join(f"{key} {before[key]} before, {now[key]} now" for key in keys)


def prepare(deterministic: bool) -> None:
    """Sets up the devices of this process: GPU memory is taken as it is needed, not all at once.

    Args:
        deterministic: whether operations must give the same bits each time, on a GPU too. It stays so for
            the rest of the process.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # the process has used its GPUs already, as it has set them up
            break
    if deterministic:
        tf.config.experimental.enable_op_determinism()
