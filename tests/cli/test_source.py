from dataclasses import dataclass
from typing import ClassVar

import pytest

from bnhead.cli.source import SourceFlags, require_choice, require_least
from bnhead.errors import DataError, UsageError

pytestmark = pytest.mark.quick


@dataclass(frozen=True)
class Optional(SourceFlags):
    command: ClassVar[str] = "check"
    needs_data: ClassVar[bool] = False


def test_only_a_file_can_do_without_data(tmp_path):
    file = tmp_path / "mine.keras"
    file.write_text("a model")
    assert Optional(str(file)).dataset == ""
    with pytest.raises(UsageError, match=r"dataset is missing; .* inspect .*mine\.keras --dataset=digits"):
        SourceFlags(str(file))
    with pytest.raises(UsageError, match="check resnet20 --dataset=digits"):
        Optional("resnet20")


def test_rules_of_the_flags(tmp_path):
    assert SourceFlags("resnet20", "digits", head="fastai").head.startswith("catpool_bn")
    assert SourceFlags(str(tmp_path)).is_run and not SourceFlags("resnet20", "digits").is_run
    assert SourceFlags("resnet20", "digits", custom_objects="a:B,c").needed_objects == ["a:B", "c"]
    for flags, message in (
        ({"pixels": "sined"}, "pixels 'sined' is not known; did you mean 'signed'"),
        ({"task": "regress"}, "task 'regress' is not known; did you mean 'regression'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"custom_objects": "a/b"}, "custom_objects 'a/b' must be module:Name"),
        ({"data": "x.npz"}, "dataset does not go with --data"),
    ):
        with pytest.raises(UsageError, match=message):
            SourceFlags("resnet20", "digits", **flags)
    with pytest.raises(DataError, match="no such file"):
        SourceFlags(str(tmp_path), data="x.npz")


def test_choices_and_limits():
    require_choice("way", "", ("", "left"))
    with pytest.raises(
        UsageError, match=r"way 'lft' is not known; did you mean 'left'\? \(there are left, right\)"
    ):
        require_choice("way", "lft", ("", "left", "right"))
    require_least("number", 1, 1)
    for value in (0.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"number must be at least 1, got {value}"):
            require_least("number", value, 1)
