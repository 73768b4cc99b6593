import shlex

import pytest

from bnhead.cli.train import COMMAND
from bnhead.report.pages import html, markdown
from bnhead.report.study import Run, read
from bnhead.report.study_page import cells, command, content, machine, train_command
from tests.report import studies


def test_the_table_of_cells_is_the_verdicts(tmp_path):
    study = read(studies.write(tmp_path, "placement", seeds=4))
    table = cells(study)
    assert table["headings"] == ["n", "mean", "sd", "least", "most", "silent per input", "dead on all"]
    assert [row["about"] for row in table["rows"]] == ["", "P0", "P1", "P2", "P3"]
    for row, cell in zip(table["rows"], study.verdict["cells"], strict=True):
        assert row["name"] == cell["name"]
        assert row["texts"] == ["4", f"{cell['mean']:.2%}", f"{100 * cell['sd']:.2f}", f"{cell['min']:.2%}",
                                f"{cell['max']:.2%}", "51.5%", "2.1%"]  # fmt: skip


def test_layers_are_named_where_there_are_several(tmp_path):
    study = read(studies.write(tmp_path, seeds=2))
    study.verdict["cells"][1]["dead"]["head_fc2/per_input"] = {"mean": 0.25, "sd": None}
    study.verdict["cells"][1]["dead"]["head_fc2/always_on"] = {"mean": 0.5, "sd": None}
    table = cells(study)
    assert table["headings"][5:] == [
        *("head_fc silent per input", "head_fc dead on all", "head_fc2 silent per input"),
    ]
    assert [row.name for row in table["shares"]] == ["per_input", "dataset"]
    assert [row["texts"][-1] for row in table["rows"]] == ["–", "25.0%"]  # noqa: RUF001


def test_the_flow_and_what_was_not_read(tmp_path):
    said = content(read(studies.write(tmp_path, "damaged")))
    flow = {"planned": 20, "started": 19, "finished": 17, "diverged": 1, "failed": 1, "missing": 1}
    assert said["flow"] == [*flow.items(), ("analysed", 18)]
    assert [(run.cell, run.seed) for run in said["unread"]] == [("bn_fc", 4)]
    assert len(said["exclusions"]) == 3 and len(said["commands"]) == 20


def test_a_mean_of_some_counts_says_of_how_many(tmp_path):
    study = read(studies.write(tmp_path, seeds=4))
    study.verdict["cells"][0]["dead"]["head_fc/dataset"] = {"n": 3, "mean": 0.02, "sd": None}
    study.verdict["cells"][1]["dead"]["head_fc/dataset"] = {"n": 4, "mean": 0.02, "sd": None}
    assert [row["texts"][-1] for row in cells(study)["rows"]] == ["2.0% (3 of 4)", "2.0%"]


def test_a_verdict_of_another_plan_is_stale(tmp_path):
    study = read(studies.write(tmp_path, seeds=2))
    assert not content(study)["stale"]
    study.verdict["plan_sha256"] = "other"
    assert content(study)["stale"]


def test_a_plan_that_is_not_what_was_hashed_is_said_on_both_pages(tmp_path):
    study = read(studies.write(tmp_path, seeds=2))
    assert not content(study)["edited"]
    study.plan["delta"] = 0.02
    said = content(study)
    assert said["edited"]
    for page in (html(said, "study.html"), markdown(said, "study.md")):
        assert "The plan was changed after it was frozen" in page


@pytest.mark.parametrize(
    ("word", "tone"),
    [("HELPS", "good"), ("HURTS", "bad"), ("MIXED", "open"), ("INVALID", "bad")],
)
def test_the_tone_is_the_words(tmp_path, word, tone):
    study = read(studies.write(tmp_path, seeds=2))
    study.verdict["word"] = word
    assert content(study)["tone"] == tone


def test_the_command_of_a_run_asks_for_its_settings(tmp_path):
    study = read(studies.write(tmp_path, "learning_rate", seeds=2))
    for run in (study.runs[-1], Run("abc", study.runs[-1].cell, 1)):  # one that is there, one that is missing
        python, script, *flags = shlex.split(command(study, run))
        assert (python, script) == ("python", "train.py")
        settings = COMMAND.parse(flags)
        assert (settings.head, settings.seed, settings.learning_rate) == ("bn_fc", 1, 1.0)
        assert settings.workdir == f"DIR/runs/{run.id}"
        assert {k: v for k, v in settings.settings().items() if k in study.runs[-1].config} == study.runs[
            -1
        ].config


def test_the_number_of_threads_is_part_of_it(tmp_path):
    study = read(studies.write(tmp_path, seeds=2))
    study.plan["threads"] = 1
    assert command(study, study.runs[0]).startswith(
        "TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 python "
    )


def test_the_shell_reads_values_as_they_are():
    settings = {"dataset": "folder:my $(pictures)", "mixed_precision": True, "weight_histograms": False}
    assert shlex.split(train_command(settings, "there"))[2:] == [
        "--dataset=folder:my $(pictures)",
        "--mixed_precision",
        "--noweight_histograms",
        "--workdir=there",
    ]


def test_machines_that_differ_are_told_apart():
    environments = [{"keras": "3.15.1", "devices": ["CPU"], "seconds": 1, "started": "now",
                     "sessions": [{"started": "now", "step": 0}]},
                    {"keras": "3.15.1", "devices": ["GPU", "CPU"]}, {"keras": "3.16.0"}, {}]  # fmt: skip
    runs = [Run(str(i), "fc", i, environment=own) for i, own in enumerate(environments)]
    assert machine(runs) == [
        ("keras", [("3.15.1", 2), ("3.16.0", 1)]),
        ("devices", [("CPU", 1), ("GPU, CPU", 1)]),
    ]
