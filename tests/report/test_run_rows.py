"""`runs.csv`: a row for each run, with the numbers that were judged."""

import csv
import json

import pytest

from bnhead.report import run_rows
from bnhead.studies.directory import read_study
from tests.studies.fake import write_study

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("shape", ["two", "width", "regression", "strange", "damaged"])
def test_it_has_the_runs_and_their_files_numbers(tmp_path, shape):
    study = read_study(write_study(tmp_path, shape))
    rows = list(csv.DictReader(run_rows.runs_csv(study).splitlines()))
    assert [(row["run"], row["cell"], int(row["seed"])) for row in rows] == [
        (run.id, run.cell, run.seed) for run in study.judged_runs
    ]
    for row in rows:
        files = study.runs[row["run"]]
        assert row["status"] == files.result.get("status", "missing")
        for key, value in files.result.items():
            if key.startswith(("test_", "dead/")) and value is not None:
                assert float(row[key]) == value


def test_its_outcomes_give_the_verdict_again(tmp_path):
    study = read_study(write_study(tmp_path, "width"))
    rows = list(csv.DictReader(run_rows.runs_csv(study).splitlines()))
    for comparison in study.verdict["comparisons"]:
        for row in (comparison, *comparison["secondary"]):
            scores = {
                side: {
                    int(r["seed"]): float(r[row["outcome"]]) for r in rows if r["cell"] == comparison[side]
                }
                for side in ("control", "treatment")
            }
            differences = [scores["treatment"][seed] - scores["control"][seed] for seed in row["seeds"]]
            assert differences == pytest.approx(row["differences"], abs=1e-12) and len(differences) > 1
    assert {row["fc_units"] for row in rows} == {"32", "64", "128", "256", "512", "1024", "2048"}


def test_a_run_without_a_result_has_an_empty_row(tmp_path):
    directory = write_study(tmp_path, "two")
    run = json.loads((directory / "plan.json").read_text())["runs"][0]["id"]
    (directory / "runs" / run / "result.json").unlink()
    row = next(csv.DictReader(run_rows.runs_csv(read_study(directory)).splitlines()))
    assert (row["run"], row["status"], row["test_accuracy"]) == (run, "missing", "")


def test_the_claims_follow_from_the_rows(imbalance):
    rows = list(csv.DictReader(run_rows.runs_csv(imbalance).splitlines()))

    def of(cell, column="balanced_accuracy"):
        return [float(row[column]) for row in rows if row["cell"] == cell]

    cells = [f"{head} at imbalance one_majority:20" for head in ("fc", "fc_out_bn")]
    claims = {row["claim"]: row for row in imbalance.verdict["claims"]["rows"] if row["head"] == "fc_out_bn"}
    control = of(cells[0])
    for claim, column in (("general", ""), ("removable", "_without_norms")):
        values = of(cells[1], f"balanced_accuracy{column}")
        differences = [treated - plain for treated, plain in zip(values, control, strict=True)]
        assert differences == pytest.approx(claims[claim]["differences"], abs=1e-12)
