import numpy as np
import pytest
from matplotlib import pyplot

from bnhead import studies
from bnhead.errors import RunDirectoryError
from bnhead.studies import wording
from tests.studies.fake import write_study

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module", params=["two", "controls", "strange", "regression", "damaged"])
def verdict(request, tmp_path_factory):
    directory = write_study(tmp_path_factory.mktemp(request.param), request.param)
    return studies.read_verdict(str(directory))


def test_it_says_its_word_and_prints_a_sentence_for_each_comparison(verdict):
    assert repr(verdict).startswith(f"<Verdict: {verdict.word}, {verdict.files.plan.study}, ")
    assert repr(verdict).endswith(", 10 seeds>")
    expected = [row["sentence"] for row in (*verdict.files.verdict["trends"], *verdict.comparisons)]
    if len(expected) == 1 and verdict.comparisons[0]["word"] != "INVALID":
        expected.append(verdict.comparisons[0]["secondary"][0]["sentence"])
    assert str(verdict).splitlines() == expected


def test_a_row_for_each_comparison_with_means_over_the_seeds(verdict):
    rows = verdict.rows()
    assert [row["comparison"] for row in rows] == [numbers["name"] for numbers in verdict.comparisons]
    for row, numbers in zip(rows, verdict.comparisons, strict=True):
        assert row["control_score"] == pytest.approx(np.mean(numbers["control_scores"]))
        assert row["treatment_score"] - row["control_score"] == pytest.approx(row["difference"])
        assert [row["low"], row["high"]] == numbers["interval"] and row["seeds"] == len(numbers["seeds"])
    frame = verdict.to_frame()
    assert frame.index.name == "comparison" and list(frame["verdict"]) == [row["verdict"] for row in rows]


def test_the_dead_share_is_the_mean_of_the_cells_runs(verdict):
    row = verdict.rows()[0]
    for side in ("control", "treatment"):
        runs = verdict.files.of_cell(row[side])
        shares = [run.result["dead/head_fc/dataset"] for run in runs if run.result]
        assert row[f"{side}_dead"] == pytest.approx(np.mean(shares))


def test_the_table_escapes_names(verdict):
    html = verdict._repr_html_()
    assert "<script>" not in html and "<i>" not in html and html.count("<tr>") == len(verdict.rows()) + 1


def test_the_cause_tables_of_a_diagnosis_follow_its_comparisons(tmp_path):
    verdict = studies.read_verdict(write_study(tmp_path / "causes", "causes"))
    tables = verdict.files.verdict["causes"]
    html = verdict._repr_html_()
    assert html.count("<table") == 1 + len(tables) and html.count(">batch noise<") == len(tables) > 1
    for table in tables:
        (total,) = (row for row in table["rows"] if row["part"] == "total")
        assert wording.ascii_difference(total["mean"], table["outcome"]) in html


def test_the_forest_has_a_dot_for_each_seed_and_the_interval(verdict):
    _, given = pyplot.subplots()
    ax = verdict.plot_forest(given)
    assert ax is given and len(ax.get_yticks()) == len(verdict.comparisons)
    factor = 1 if verdict.files.plan.primary == "test_r2" else 100
    numbers = verdict.comparisons[0]
    dots = ax.collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 0], factor * np.array(numbers["differences"]))
    ((start, end),) = ax.collections[1].get_segments()
    assert [start[0], end[0]] == pytest.approx([factor * bound for bound in numbers["interval"]])
    assert [text.get_text() for text in ax.texts] == [numbers["word"] for numbers in verdict.comparisons]
    ax.figure.canvas.draw()


def test_a_directory_without_a_study(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds neither a study nor a run"):
        studies.read_verdict(tmp_path)


def test_figures_are_named_after_the_outcome_that_was_judged(tmp_path):
    """The primary outcome of `width` is the dead share, of which less is better, also for regression."""
    verdict = studies.read_verdict(str(write_study(tmp_path / "width", "width")))
    label = verdict.plot_forest().get_xlabel()
    assert label.index("treatment better") < label.index("dead units") < label.index("control better")
    assert "dead units, control" in verdict._repr_html_()
