"""`bnhead diagnose`: its plan, what it says beforehand, and that it goes on; runs cost nothing here."""

import pytest

from bnhead.cli import diagnose, study
from bnhead.cli.train import GROUPS

pytestmark = pytest.mark.quick


def test_flags_are_those_of_a_study_without_those_that_the_table_fixes(capsys):
    fields = {spec.name for spec in diagnose.COMMAND.settings.__dataclass_fields__.values()}
    grouped = [name for names in diagnose.COMMAND.groups.values() for name in names]
    assert sorted(grouped) == sorted(fields)
    assert {"head", "seeds", "dir", "engine", "epochs", "fc_units", "head_bn_momentum"} <= fields
    assert not {"heads", "study", "neutral_init", "fc_decay", "population_stats", "seed"} & fields
    assert {"head_bn_momentum", "fc_decay"} <= {name for names in GROUPS.values() for name in names}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--neutral_init", "flag --neutral_init cannot be given: the cells of the cause table set it"),
        ("--head=fc_bn", "head must have a bn on the pooled features"),
        ("--seed=3", "flag --seed cannot be given: the study sets it"),
        ("--heads=fc,bn_fc", "flag --heads is not known"),
    ],
)
def test_wrong_flags_are_one_line(argument, message, capsys):
    assert diagnose.main([argument]) == 2
    assert message in capsys.readouterr().err


def test_the_command_of_more_seeds():
    request = diagnose.COMMAND.parse(["--head=bn_out", "--seeds=5", "--epochs=3"])
    text = study.command_of_study(request, seeds="30", first_seed=5)
    assert text.endswith("diagnose --head=bn_out --seeds=30 --first_seed=5 --epochs=3")
