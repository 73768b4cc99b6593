"""Names: bnhead.models itself."""

import subprocess
import sys

import pytest

import bnhead.models
from bnhead.errors import UsageError


def test_find_knows_names_and_other_depths():
    assert bnhead.models.find("resnet8") is bnhead.models.resnet8
    for name in ("resnet26", "preresnet32", "plain14", "wrn10_2"):
        assert bnhead.models.find(name)((8, 8, 1)).name == name
    assert bnhead.models.find("resnet50")((32, 32, 3)).output.shape[-1] == 2048, "the ImageNet net"


UNKNOWN = [
    "resnet21",
    "resnet2",
    "resnet08",
    "resnet",
    "vgg",
    "wrn12_2",
    "wrn16",
    "preresnet163",
    "",
    "find",
]


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_are_one_line(name):
    with pytest.raises(UsageError) as caught:
        bnhead.models.find(name)
    assert str(caught.value).startswith(f"backbone {name!r} is not known")
    assert "did you mean" in str(caught.value) or "such as resnet20" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet21", "'resnet20' or 'resnet26'"),
        ("resnet2", "'resnet8'"),
        ("plain19", "'plain14' or 'plain20'"),
        ("wrn12_2", "'wrn10_2' or 'wrn16_2'"),
    ],
)
def test_the_nearest_depths(name, hint):
    with pytest.raises(UsageError, match=rf"is not known; did you mean {hint}\?"):
        bnhead.models.check_backbone(name)
    for depth in hint.replace("'", "").split(" or "):
        bnhead.models.check_backbone(depth)


def test_the_names_of_keras_applications_are_those_of_keras():
    from bnhead.models import existing

    assert list(bnhead.models.APPLICATIONS) == list(existing.applications())
    with pytest.raises(UsageError, match=r"backbone 'keras:VGG' is not known; did you mean 'VGG1[69]'\?$"):
        bnhead.models.check_backbone("keras:VGG")
    with pytest.raises(UsageError, match=r"backbone 'keras:' is not known \(there are ConvNeXtBase"):
        bnhead.models.check_backbone("keras:")


def test_nearest_name():
    with pytest.raises(UsageError, match="did you mean 'resnet20'"):
        bnhead.models.check_backbone("resent20")
    with pytest.raises(UsageError, match=r"backbone 'no.keras': no such file"):
        bnhead.models.check_backbone("no.keras")


def test_every_public_name_is_a_builder():
    for name in bnhead.models.BUILDERS:
        assert callable(getattr(bnhead.models, name)), name
    with pytest.raises(AttributeError, match="no attribute 'resnet9'"):
        bnhead.models.resnet9  # noqa: B018


def test_names_are_checked_without_keras():
    code = "import sys, bnhead.models as m; m.check_backbone('keras:VGG16'); print('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
