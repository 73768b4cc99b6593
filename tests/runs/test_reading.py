import pytest
from scipy.stats import binomtest

from bnhead.runs.reading import cautions, wilson

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("k", "n"), [(359, 360), (360, 360), (0, 7), (1, 2), (4900, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilsons_interval_is_scipys(k, n, confidence):
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k / n, n, confidence) == pytest.approx(tuple(expected), abs=1e-12)


SETTINGS = {"task": "classification", "recompute_batch_stats": "none"}
CHECKS = {"class_counts": {"train": [50, 50], "test": [40, 60]}, "batches": {"steps": 11}}


def lines(test, trained, *, images=100, **settings):
    result = {"test_accuracy": test, "epochs": 2, "data": {"test": images, "checks": CHECKS}}
    return cautions({**SETTINGS, **settings}, result, [{"accuracy": 0.1}, {"accuracy": trained}])


def test_a_test_accuracy_at_chance_is_explained_where_training_is_not():
    (line,) = cautions(
        SETTINGS,
        {
            "test_accuracy": 0.11,
            "epochs": 2,
            "data": {"test": 360, "checks": {**CHECKS, "class_counts": {"test": [36] * 10}}},
        },
        [{"accuracy": 0.72}],
    )
    assert line == (
        "test accuracy is at chance, 11.0%, and training accuracy is not, 72.0%: after 22 steps the moving "
        "averages of the batch norms may still lag; --recompute_batch_stats=all measures them at the end, "
        "and more epochs let them follow"
    )


def test_the_caution_is_about_the_largest_class_and_both_accuracies(monkeypatch):
    monkeypatch.setattr("bnhead.runs.reading.AT_CHANCE", 1.1)
    assert len(lines(0.65, 0.99 * 2)) == 1
    assert lines(0.67, 2.0) == [], "0.66 is 1.1 times the share of the largest class"
    assert lines(0.65, 1.31) == [], "training must be well above chance"
    assert lines(0.65, 2.0, task="regression") == []
    assert "may differ" in lines(0.65, 2.0, recompute_batch_stats="all")[0]


def test_few_test_images():
    assert lines(0.9, 0.9, images=60) == ["60 test images are few: one is 1.7 points of accuracy"]
    assert lines(0.9, 0.9, images=100) == []


def test_files_that_lack_figures_give_no_caution():
    assert cautions(SETTINGS, {"epochs": 1, "data": {"test": 360}}, []) == []
    assert (
        cautions({}, {"epochs": 1, "test_accuracy": None, "data": {"test": 360, "checks": CHECKS}}, []) == []
    )
