import numpy as np
import pytest
from scipy import special

from bnhead.errors import UsageError
from bnhead.mechanisms.calibration import CalibrationSums
from bnhead.runs import predictions
from bnhead.runs.predictions import of_outputs
from bnhead.studies.by_class import by_class
from bnhead.studies.measures import MEASURES, OF_CLASSES, PRIMARY, measure_of, measures_of

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
OUTPUTS, LABELS = RNG.normal(0, 2, (40, 3)), RNG.integers(0, 3, 40)
SILENT = RNG.uniform(0, 1, (40, 2))
KEPT = of_outputs(OUTPUTS, LABELS, SILENT, ("head_fc", "stage3_relu"), "classification")


def values(name, result=None, task="classification"):
    return MEASURES[name].values(result or {}, KEPT, task)


def test_values_are_those_of_each_image():
    one_hot = np.eye(3)[LABELS]
    assert np.array_equal(values("accuracy"), (OUTPUTS.argmax(1) == LABELS))
    shares = special.softmax(OUTPUTS.astype("float32").astype("float64"), axis=1)
    assert values("nll") == pytest.approx(-np.log((shares * one_hot).sum(1)))
    yes = special.expit(OUTPUTS)
    expected = -(one_hot * np.log(yes) + (1 - one_hot) * np.log(1 - yes)).mean(1)
    assert values("nll", task="multilabel") == pytest.approx(expected, rel=1e-5)
    assert values("silent_share") == pytest.approx(SILENT[:, 0], rel=1e-6)  # of the first layer


def test_a_measure_that_is_no_mean_over_images_is_one_number():
    result = {"test_r2": 0.75, "dead/head_fc/dataset": 0.25, "dead/stage3_relu/dataset": 0.5}
    result |= {"dead/head_fc/class_dead": 0.5, "mechanisms/initial_modal_share": 0.9, "data": DATA}
    result |= {"test_robust_accuracy": 0.25, "test_corrupted_accuracy": 0.5}
    assert values("r2", result).tolist() == [0.75] and values("dead_share", result).tolist() == [0.25]
    assert values("r2") is None and values("dead_share") is None
    for row in MEASURES.values():
        array = row.values(result, KEPT, "classification")
        assert array.dtype == "float64" and array.shape == ((40,) if row.is_per_image else (1,))


def test_chance():
    def chance(name, classes, task="classification"):
        return MEASURES[name].chance(classes, task)

    assert chance("accuracy", 4) == 0.25 and chance("r2", None, "regression") == 0
    assert chance("nll", 4) == pytest.approx(np.log(4))
    assert chance("nll", 4, "multilabel") == pytest.approx(np.log(2))  # of each yes or no
    assert chance("dead_share", 4) is None and chance("silent_share", 4) is None


def test_a_guess_has_the_loss_and_accuracy_of_chance():
    """Equal outputs for every class, on every label as often."""
    labels = np.arange(40) % 4
    guess = of_outputs(np.zeros((40, 4)), labels, SILENT, ("a", "b"), "classification")
    for name, task in (("accuracy", "classification"), ("nll", "classification"), ("nll", "multilabel")):
        row = MEASURES[name]
        assert row.values({}, guess, task).mean() == pytest.approx(row.chance(4, task))


def test_the_margins_and_better_directions():
    assert {row.name: (row.margin, row.better, row.is_relative) for row in MEASURES.values()} == {
        "accuracy": (0.01, 1, False),
        "r2": (0.01, 1, False),
        "dead_share": (0.02, -1, False),
        "silent_share": (0.02, -1, False),
        "nll": (0.05, -1, True),
        "balanced_accuracy": (0.01, 1, False),
        "adjusted_balanced_accuracy": (0.01, 1, False),
        "macro_f1": (0.01, 1, False),
        "minority_recall": (0.02, 1, False),
        "minority_precision": (0.02, 1, False),
        "ece_excess": (0.01, -1, False),
        "class_dead": (0.02, -1, False),
        "robust_accuracy": (0.02, 1, False),
        "corrupted_accuracy": (0.01, 1, False),
        "initial_modal_share": (0.05, -1, False),
    }


DATA = {"prior": [0.7, 0.2, 0.1], "checks": {"class_counts": {"train": [70, 20, 10]}}}


def test_figures_of_the_classes():
    result, logits = {"data": DATA}, OUTPUTS.astype("float32").astype("float64")
    plain, without = by_class(logits, LABELS), by_class(logits - np.log(DATA["prior"]), LABELS)
    expected = {
        "balanced_accuracy": plain.recall.mean(),
        "adjusted_balanced_accuracy": without.recall.mean(),
        "macro_f1": plain.f1.mean(),
        "minority_recall": plain.recall[1:].mean(),  # 20 and 10 are fewer than 100 / 3
        "minority_precision": plain.precision[1:].mean(),
    }
    assert {name: values(name, result).tolist() for name in expected} == {
        name: [pytest.approx(value)] for name, value in expected.items()
    }
    assert values("balanced_accuracy", {}) == values("balanced_accuracy", result)  # needs the outputs alone
    for name in ("adjusted_balanced_accuracy", "minority_recall"):
        assert values(name) is None
    balanced = {"checks": {"class_counts": {"train": [5, 5, 5]}}}
    assert values("minority_recall", {"data": balanced}) is None  # there is no minority


def test_calibration_is_above_its_floor():
    sums = CalibrationSums()
    sums.add(KEPT.outputs, LABELS)
    calibration = sums.result()
    assert values("ece_excess").tolist() == [calibration.ece - calibration.ece_floor]
    assert values("ece_excess", task="multilabel") is None


def test_outputs_that_were_not_kept_give_no_figures_of_classes(monkeypatch):
    monkeypatch.setattr(predictions, "MOST_OUTPUTS", 10)
    few = of_outputs(OUTPUTS, LABELS, SILENT, ("head_fc", "b"), "classification")
    for name in (*OF_CLASSES, "ece_excess"):
        assert MEASURES[name].values({"data": DATA}, few, "classification") is None


def test_the_primary_measure_is_the_first():
    assert measures_of("classification") == ("accuracy", "dead_share", "silent_share", "nll")
    assert measures_of("classification", "nll") == ("nll", "accuracy", "dead_share", "silent_share")
    assert measures_of("regression") == ("r2", "dead_share", "silent_share")
    assert all(MEASURES[name].name == name for name in PRIMARY.values())
    assert measures_of("classification", "macro_f1")[:2] == ("macro_f1", "accuracy")
    chosen = measures_of("multilabel", "balanced_accuracy", ("macro_f1", "ece_excess", "nll"))
    assert chosen == ("balanced_accuracy", "macro_f1", "nll")  # a sigmoid for each class has no calibration
    with pytest.raises(
        UsageError, match="outcome 'nl' is not measured for classification; did you mean 'nll'"
    ):
        measures_of("classification", "nl")


def test_a_metric_of_a_users_model():
    row = measure_of("test_auc", better=-1)
    assert (row.name, row.better, row.is_per_image) == ("test_auc", -1, False)
    assert row.values({"test_auc": 0.5}, KEPT, "classification").tolist() == [0.5]
    assert row.values({}, KEPT, "classification") is None and measure_of("nll") is MEASURES["nll"]
    with pytest.raises(UsageError, match="outcome 'auc' is not known"):
        measure_of("auc")
