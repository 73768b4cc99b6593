import numpy as np
import pytest

from bnhead.lint.evidence import Evidence, Labels, Place, Training, finding, graded
from bnhead.lint.net import Net
from tests.lint.nets import sequential


def test_the_steps_of_a_training():
    assert Training(128, 1797, 5).steps == 75 and Training(128, 1797, 5).remainder == 5
    assert Training(128, 1797, 5, drop_remainder=True).steps == 70
    assert Training(128, 1797, 5, drop_remainder=True).remainder == 0
    assert Training(128, 0, 5).steps == Training(128, 1797).steps == 0


def evidence(labels, model=None, task=""):
    model = model or sequential()
    return Evidence(Net(model, []), Training(8), None, Labels(np.asarray(labels)), task)


@pytest.mark.parametrize("labels", [[0, 1, 1, 3], [[0], [1], [1], [3]], np.eye(4)[[0, 1, 1, 3]]])
def test_class_shares(labels):
    assert evidence(labels).class_shares.tolist() == [0.25, 0.5, 0, 0.25]
    assert not evidence(labels).is_regression


def test_numbers_to_predict():
    assert evidence([0.5, 1.5]).is_regression and evidence([0.5, 1.5]).class_shares is None
    assert evidence([0, 1], task="regression").is_regression
    model = sequential()
    for loss in ("mse", "mean_absolute_error", "huber"):
        model.compile(loss=loss)
        assert evidence([0, 1], model).is_regression
    model.compile(loss="sparse_categorical_crossentropy")
    assert not evidence([0.0, 1.0], model).is_regression


def test_numbers_that_are_not_worth_a_line_are_no_findings():
    assert finding("BN402", ["bn"], "", 0.05) == [] and finding("BN402", ["bn"], "", 0.06)
    assert finding("BN203", ["bn"], "", 8) == [] and finding("BN203", ["bn"], "", 7)[0].severity == "info"
    assert finding("BN401", ["bn"], "", None)[0].severity == "info"


def test_the_worst_layer_of_each_severity_speaks():
    places = [Place("a", 1.05, "A"), Place("b", 1.5, "B"), Place("c", 2.0, "C"), Place("d", None, "D")]
    beyond, others = graded("BN401", places)
    assert beyond.where == ("c", "b") and beyond.value == 2 and beyond.what == "C; c is the worst"
    assert others.severity == "info" and set(others.where) == {"a", "d"}
