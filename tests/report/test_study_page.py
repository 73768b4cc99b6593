import dataclasses
import shlex
from pathlib import Path

import pytest

from bnhead.cli.train import COMMAND
from bnhead.report.pages import html_page, markdown_page
from bnhead.report.study_page import (
    cell_table,
    machine_rows,
    run_command,
    study_content,
)
from bnhead.runs.run_files import RunFiles
from bnhead.studies.directory import read_study
from tests.studies.fake import write_study

pytestmark = pytest.mark.quick


def test_the_table_of_cells_is_the_verdicts(tmp_path):
    study = read_study(write_study(tmp_path, "placement", seeds=4))
    table = cell_table(study)
    assert table["headings"] == ["n", "mean", "sd", "min", "max", "dead", "silent per input"]
    assert [row["about"] for row in table["rows"]] == [""] * 5
    for row, cell in zip(table["rows"], study.verdict["cells"], strict=True):
        dead = [f"{cell['dead'][f'head_fc/{name}']['mean']:.1%}" for name in ("dataset", "per_input")]
        assert row["name"] == cell["name"]
        assert row["texts"] == ["4", f"{cell['mean']:.2%}", f"{100 * cell['sd']:.2f}", f"{cell['min']:.2%}",
                                f"{cell['max']:.2%}", *dead]  # fmt: skip


def test_layers_are_named_where_there_are_several(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    study.verdict["cells"][1]["dead"]["head_fc2/per_input"] = {"mean": 0.25, "sd": None}
    study.verdict["cells"][1]["dead"]["head_fc2/always_on"] = {"mean": 0.5, "sd": None}
    table = cell_table(study)
    assert table["headings"][5:] == [
        *("head_fc dead", "head_fc silent per input", "head_fc2 silent per input"),
    ]
    assert [row.name for row in table["shares"]] == ["dataset", "per_input"]
    assert [row["texts"][-1] for row in table["rows"]] == ["–", "25.0%"]  # noqa: RUF001


def test_the_flow_and_what_was_not_read(tmp_path):
    said = study_content(read_study(write_study(tmp_path, "damaged")))
    flow = {"planned": 20, "started": 19, "finished": 17, "diverged": 1, "failed": 1, "missing": 1}
    assert said["flow"] == [*flow.items(), ("analysed", 18)]
    assert [(run["cell"], run["seed"]) for run in said["unread"]] == [("bn_fc", 4)]
    assert len(said["exclusions"]) == 3 and len(said["commands"]) == 20


def test_a_mean_of_some_counts_says_of_how_many(tmp_path):
    study = read_study(write_study(tmp_path, seeds=4))
    study.verdict["cells"][0]["dead"]["head_fc/dataset"] = {"n": 3, "mean": 0.02, "sd": None}
    study.verdict["cells"][1]["dead"]["head_fc/dataset"] = {"n": 4, "mean": 0.02, "sd": None}
    assert [row["texts"][-2] for row in cell_table(study)["rows"]] == ["2.0% (3 of 4)", "2.0%"]


def test_a_verdict_of_another_plan_is_stale(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    assert not study_content(study)["stale"]
    study.verdict["plan_sha256"] = "other"
    assert study_content(study)["stale"]


def test_an_edited_plan_is_marked_on_both_pages(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    assert not study_content(study)["edited"]
    said = study_content(dataclasses.replace(study, is_edited=True))
    for page in (html_page(said, "study.html"), markdown_page(said, "study.md")):
        assert "The plan was changed after it was frozen" in page


@pytest.mark.parametrize(
    ("word", "tone"),
    [("HELPS", "good"), ("HURTS", "bad"), ("MIXED", "open"), ("INVALID", "bad")],
)
def test_the_tone_is_the_words(tmp_path, word, tone):
    study = read_study(write_study(tmp_path, seeds=2))
    study.verdict["word"] = word
    assert study_content(study)["tone"] == tone


def test_the_command_of_a_run_asks_for_its_settings(tmp_path):
    study = read_study(write_study(tmp_path, "learning_rate", seeds=2))
    run = study.plan.runs[-1]
    missing = dataclasses.replace(study, runs={**study.runs, run.id: RunFiles(tmp_path)})
    for source in (study, missing):
        program, command, *flags = shlex.split(run_command(source, run))[2:]
        assert (program, command) == ("bnhead", "train")
        config = COMMAND.parse(flags)
        assert (config.head, config.seed, config.learning_rate) == ("bn_fc", 1, 0.3)
        assert config.workdir == f"DIR/runs/{run.id}" and config.settings() == study.runs[run.id].config


def test_the_number_of_threads_is_part_of_it(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    threads = "TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 bnhead train "
    assert run_command(study, study.plan.runs[0]).startswith(threads)


def test_machines_that_differ_are_told_apart():
    environments = [{"keras": "3.15.1", "devices": ["CPU"], "seconds": 1, "started": "now",
                     "sessions": [{"started": "now", "step": 0}]},
                    {"keras": "3.15.1", "devices": ["GPU", "CPU"]}, {"keras": "3.16.0"}, {}]  # fmt: skip
    runs = [RunFiles(Path(), environment=environment) for environment in environments]
    assert machine_rows(runs) == [
        ("keras", [("3.15.1", 2), ("3.16.0", 1)]),
        ("devices", [("CPU", 1), ("GPU, CPU", 1)]),
    ]


def test_a_page_of_imbalance_has_its_classes_and_claims(imbalance):
    content = study_content(imbalance)
    page, text = html_page(content, "study.html"), markdown_page(content, "study.md")
    for part in ("Classes", "Claims"):
        assert f">{part}</h2>" in page and f"## {part}" in text
    assert page.count("CONFIRMED</p>") + page.count("REFUTED</p>") + page.count("UNDECIDED</p>") >= 14
    assert "| iv. other data, simple nets | CONFIRMED |" in text
    assert "without the prior" in page and "<dt>minority class</dt>" in page
    # what is compared stands in the tables of units and curves; the cells of the claims do not
    (dead, *_) = content["summary"]
    assert len(dead["heads"]) == len(dead["rows"][0][1]) == 8 and len(dead["rows"]) == 1
    assert len(content["cells"]["rows"]) == 26
