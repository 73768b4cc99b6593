"""`bnhead diagnose`: its plan, what it says beforehand, and that it goes on; runs cost nothing here."""

import contextlib
import json

import pytest

from bnhead.cli import diagnose, study
from bnhead.cli.train import GROUPS
from bnhead.studies import worker
from tests.studies import fake

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


def test_it_says_how_many_runs_and_how_long_and_ends_in_the_tables(tmp_path, capsys):
    jobs = {
        worker.look_at_data: fake.look,
        worker.train_one: fake.work,
        worker.pace: lambda config, report: {"seconds": 30.0},
    }
    reported = []

    def run(*flags):
        arguments = ["--seeds=3", f"--dir={tmp_path / 'causes'}", "--epochs=2", "--workers=2", *flags]
        pool = contextlib.nullcontext(fake.Inline(jobs))
        status = diagnose.main(arguments, lambda workers: pool, lambda *given: reported.append(given[0]))
        return status, capsys.readouterr().out

    status, out = run("--dry_run")
    assert status == 0 and out.count("bnhead train --head=") == 45 and not reported
    assert "45 runs of 2 epochs, 0 done, 2 at a time: about 11 min, going by the first steps of one" in out
    status, out = run()
    assert status == 0 and reported == [tmp_path / "causes"]
    assert "45 runs of 2 epochs, 0 done, 2 at a time: about 11 min" in " ".join(out.split())
    for line in ("Test accuracy, bn_fc less fc: ", "centring  ", "statistics' gradient  ", "all together  "):
        assert line in out, line
    assert "less with decay in features' units" in out and "99.5 %" in out
    verdict = json.loads((tmp_path / "causes" / "verdict.json").read_text())
    assert {table["outcome"]: table["reason"] for table in verdict["causes"]} == {
        "accuracy": "",
        "dead_share": "fewer than two seeds have a score in every cell",  # the drawn runs have none
        "nll": "",
    }
    assert run()[0] == 0  # all runs are kept
    assert verdict == json.loads((tmp_path / "causes" / "verdict.json").read_text())


def test_the_command_of_more_seeds():
    request = diagnose.COMMAND.parse(["--head=bn_out", "--seeds=5", "--epochs=3"])
    text = study.command_of_study(request, seeds="30", first_seed=5)
    assert text.endswith("diagnose --head=bn_out --seeds=30 --first_seed=5 --epochs=3")
