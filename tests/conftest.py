"""What several test files share: the device, a place for TFDS, one short finished run, a quiet TensorFlow.

The tests compute on the CPU, in float32, also where there is a GPU: TensorFloat-32 keeps 10 bits of 23. Only
`-m gpu` lets them see it.
"""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.pop("COLUMNS", None)  # texts are as wide as where there is no terminal; pytest-xdist sets it

import pytest

from bnhead.training import TrainConfig


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        # no device has been used yet; child processes read the same variables
        os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def pytest_report_header(config):
    return "" if config.option.markexpr == "gpu" else "bnhead: on the CPU; -m gpu for the tests on a GPU"


def pytest_ignore_collect(collection_path, config):
    """With `-m quick`, files without a quick test are not even imported: most of them import TensorFlow."""
    if config.option.markexpr == "quick" and collection_path.suffix == ".py":
        return "pytest.mark.quick" not in collection_path.read_text() or None
    return None


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def short_config(data_dir, tmp_path_factory):
    """Makes the config of a run of seconds in a directory of its own."""

    def make(**settings) -> TrainConfig:
        workdir = str(tmp_path_factory.mktemp("run") / "here")
        defaults = {
            "data_dir": data_dir,
            "workdir": workdir,
            "backbone": "resnet8",
            "head": "bn_fc",
            "fc_units": 32,
        }
        return TrainConfig(**{**defaults, "epochs": 2, "warmup_epochs": 0.5, "batch_size": 256, **settings})

    return make


@pytest.fixture(scope="session")
def short_run(short_config):
    """A finished run: its config and what `train` returned."""
    from bnhead.training import train

    config = short_config(weight_histograms=True)
    return config, train(config)


@pytest.fixture(scope="module")
def hooks():
    """The hooks of MkDocs, which import all generators of docs/. They need no MkDocs."""
    docs = Path(__file__).resolve().parent.parent / "docs"
    spec = importlib.util.spec_from_file_location("hooks", docs / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
