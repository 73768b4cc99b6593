import pytest

from bnhead.studies.directory import read_study
from tests.studies import unequal
from tests.studies.fake import write_study


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    """Reads a study of a shape (`fake.SHAPES`), written once."""
    studies = {}

    def of(shape):
        if shape not in studies:
            studies[shape] = read_study(write_study(tmp_path_factory.mktemp(shape) / "here", shape))
        return studies[shape]

    return of


@pytest.fixture(scope="session")
def imbalance(tmp_path_factory):
    """A study of class imbalance, of drawn runs: `fc_out_bn` gains, unless there are two majority classes."""

    def draw(config):
        gains = config.head == "fc_out_bn" and "two" not in config.imbalance
        gain = (6 + config.seed % 2) / 36 * gains
        return {"gain": gain, "bare": gain / 2 if "bn" in config.head else None}

    directory = tmp_path_factory.mktemp("imbalance") / "here"
    unequal.write_study(directory, draw)
    return read_study(directory)
