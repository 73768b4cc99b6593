import pytest

from bnhead.report import provisional
from bnhead.report.study_page import study_content
from bnhead.studies.directory import read_study
from tests.studies.fake import plan_of, write_run, write_study

pytestmark = pytest.mark.quick


def test_it_has_the_numbers_of_the_runs_and_no_statement(tmp_path):
    directory = write_study(tmp_path, "width", seeds=3)
    study = read_study(directory)
    one = provisional.without_verdict(study, directory).verdict
    assert (one["word"], one["sentence"]) == (
        "INCOMPLETE", "42 of 42 runs have a result. There is no verdict yet."
    )  # fmt: skip
    for numbers, judged in zip(one["comparisons"], study.verdict["comparisons"], strict=True):
        assert numbers["differences"] == judged["differences"] and numbers["mean"] == judged["mean"]
        assert {numbers[key] for key in ("word", "interval", "interval_seeds", "converged")} == {"", None}
        assert numbers["secondary"] == []
    assert one["trends"] == [] and one["next"] is None
    assert {law["slope"] for law in one["width_law"]} == {None} and one["width_law"][0]["points"]
    assert one["cells"] == study.verdict["cells"]


def test_runs_to_come_are_neither_excluded_nor_unreadable(tmp_path):
    plan = plan_of(seeds=2)
    from bnhead.studies.directory import write_plan

    write_plan(tmp_path, plan)
    write_run(plan.config(plan.runs[0], tmp_path))
    content = study_content(provisional.without_verdict(read_study(tmp_path), tmp_path))
    assert content["exclusions"] == [] == content["unread"]
    assert dict(content["flow"])["finished"] == 1 and dict(content["flow"])["missing"] == 3
    assert content["again"][0][1] == "bnhead study bn_before_fc --epochs=2 --seeds=2 --dir=DIR"
    assert content["word"] == "INCOMPLETE" and not [
        row for row in content["limits"] if "interval of each" in row
    ]
