import pytest

from bnhead.studies.directory import read_study
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
