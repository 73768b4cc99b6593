import pytest

import bnhead.models
from bnhead.errors import UsageError


def test_find_knows_any_6n_plus_2():
    assert bnhead.models.find("resnet8") is bnhead.models.resnet8
    assert bnhead.models.find("resnet26")((8, 8, 1)).name == "resnet26"


@pytest.mark.parametrize(
    "name", ["resnet21", "resnet2", "resnet08", "resnet", "vgg", "resnet50", "resnet152", "", "find"]
)
def test_unknown_names_are_one_line(name):
    with pytest.raises(UsageError) as caught:
        bnhead.models.find(name)
    assert str(caught.value).startswith(f"backbone {name!r} is not known")
    assert "resnet20" in str(caught.value) and "\n" not in str(caught.value)


def test_nearest_name():
    with pytest.raises(UsageError, match="did you mean 'resnet20'"):
        bnhead.models.check("resent20")


def test_every_public_name_is_there():
    for name in bnhead.models.__all__:
        assert callable(getattr(bnhead.models, name)), name
    with pytest.raises(AttributeError, match="no attribute 'resnet9'"):
        bnhead.models.resnet9  # noqa: B018
