"""What several test files share: a place for TFDS, one short finished run, and a quiet TensorFlow."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

from bnhead.training import TrainConfig, train


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
    config = short_config(weight_histograms=True)
    return config, train(config)
