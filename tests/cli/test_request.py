import dataclasses

import pytest

from bnhead.cli.request import Request
from bnhead.errors import UsageError


def request(**settings):
    return Request(**{"model": "resnet20", "dataset": "digits", **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model is missing"),
        ({"model": "resnt20"}, "backbone 'resnt20' is not known; did you mean 'resnet20'"),
        ({"model": "nothere.keras"}, "backbone 'nothere.keras': no such file"),
        ({"dataset": ""}, "dataset is missing; a run has its own, everything else needs --dataset"),
        ({"pixels": "sined"}, "pixels 'sined' is not known; did you mean 'signed'"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
        ({"eps": -0.5}, "eps must be at least 0, got -0.5"),
        ({"eps": float("nan")}, "eps must be at least 0, got nan"),
        ({"head": "fcc"}, "'fcc' is not a token; did you mean 'fc'"),
    ],
)
def test_what_makes_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        request(**settings)


def test_where_things_are_written(tmp_path):
    assert request().directory == "census/resnet20"
    assert request(model="keras:ResNet50").directory == "census/keras-ResNet50"
    assert request(out="elsewhere").directory == "elsewhere"
    run = tmp_path / "seed0"
    run.mkdir()
    assert Request(model=str(run)).directory == "census/seed0" and Request(model=str(run)).is_run


def test_every_field_has_its_help():
    assert all(spec.metadata["help"].endswith(".") for spec in dataclasses.fields(Request))
