import dataclasses

import numpy as np
import pytest
from scipy import special

from bnhead.runs import predictions
from bnhead.runs.predictions import NAME, Predictions, of_outputs, read_predictions, write_predictions

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (50, 4)).astype("float32")
LABELS = RNG.integers(0, 4, 50)
SILENT = RNG.uniform(0, 1, (50, 2)).astype("float32")
LAYERS = ("fc1", "fc2")


def of_task(task):
    return of_outputs(LOGITS, LABELS, SILENT, LAYERS, task)


def test_accuracy_and_loss_are_those_of_the_formulas():
    kept = of_task("classification")
    np.testing.assert_array_equal(
        kept.accuracy(), [row.argmax() == y for row, y in zip(LOGITS, LABELS, strict=True)]
    )
    shares = special.softmax(LOGITS.astype("float64"), axis=1)
    expected = [-np.log(row[y]) for row, y in zip(shares, LABELS, strict=True)]
    np.testing.assert_allclose(kept.negative_log_likelihood("classification"), expected, rtol=1e-12)
    yes = special.expit(LOGITS.astype("float64"))
    one_hot = np.eye(4)[LABELS]
    expected = -(one_hot * np.log(yes) + (1 - one_hot) * np.log1p(-yes)).mean(1)
    np.testing.assert_allclose(kept.negative_log_likelihood("multilabel"), expected, rtol=1e-9)


def test_large_logits_have_a_finite_loss():
    kept = of_outputs(LOGITS * 1e4, LABELS, SILENT, LAYERS, "multilabel")
    for task in ("classification", "multilabel"):
        assert np.isfinite(kept.negative_log_likelihood(task)).all()


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_too_many_outputs_leave_what_a_verdict_needs(task, monkeypatch, tmp_path):
    full = of_task(task)
    monkeypatch.setattr(predictions, "MOST_OUTPUTS", LOGITS.size - 1)
    short = of_task(task)
    assert short.outputs is None and short.images == 50
    write_predictions(tmp_path / NAME, short)
    short = read_predictions(tmp_path)
    np.testing.assert_array_equal(short.accuracy(), full.accuracy())
    np.testing.assert_allclose(
        short.negative_log_likelihood(task), full.negative_log_likelihood(task), rtol=1e-6
    )


def test_regression_keeps_its_numbers(tmp_path):
    targets = RNG.normal(0, 1, (50, 4))
    write_predictions(tmp_path / NAME, of_outputs(LOGITS, targets, SILENT, LAYERS, "regression"))
    kept = read_predictions(tmp_path)
    np.testing.assert_array_equal(kept.labels, targets)
    np.testing.assert_array_equal(kept.outputs, LOGITS)


def test_equal_predictions_are_equal_bytes_and_come_back(tmp_path):
    for name in ("a", "b"):
        write_predictions(tmp_path / name, of_task("classification"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (tmp_path / "a").rename(tmp_path / NAME)
    kept = read_predictions(tmp_path)
    np.testing.assert_array_equal(kept.outputs, LOGITS)
    np.testing.assert_array_equal(kept.silent_share(), SILENT[:, 0])
    np.testing.assert_array_equal(kept.silent_share("fc2"), SILENT[:, 1])
    assert kept.layers == LAYERS


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize("most", [10**9, 10])
def test_those_of_the_changed_models_come_back_too(task, most, monkeypatch, tmp_path):
    monkeypatch.setattr(predictions, "MOST_OUTPUTS", most)
    first, second = of_task(task), of_task(task)
    second = dataclasses.replace(second, silent=second.silent / 2)
    third = dataclasses.replace(second, silent=second.silent / 2)
    write_predictions(tmp_path / NAME, dataclasses.replace(first, population=second, without_norms=third))
    again = read_predictions(tmp_path)
    for mine, theirs in ((again, first), (again.population, second), (again.without_norms, third)):
        for name in ("labels", "outputs", "correct", "loss", "silent"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
        assert mine.layers == first.layers
    assert again.population.population is None


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty"])
def test_a_damaged_file_is_a_value_error(damage, tmp_path):
    path = tmp_path / NAME
    write_predictions(path, of_task("classification"))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 255
    changed = {"cut": content[:-40], "flip": content, "text": b"no archive", "empty": b""}[damage]
    path.write_bytes(bytes(changed))
    with pytest.raises(ValueError):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"silent": SILENT[:, :1]}, "'silent' must be of shape"),
        ({"outputs": None}, "neither 'outputs' nor"),
        ({"outputs": LOGITS[:9]}, "'outputs' must have 50 rows"),
        ({"outputs": LOGITS[:, 0]}, "'outputs' must have 2 axes"),
        ({"layers": ()}, "'silent' must be of shape"),
    ],
)
def test_arrays_that_no_run_writes(changes, message, tmp_path):
    kept = dataclasses.replace(of_task("classification"), **changes)
    write_predictions(tmp_path / NAME, kept)
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path)


def test_no_pickle_is_loaded(tmp_path):
    arrays = {"labels": LABELS, "silent": SILENT, "layers": np.array(LAYERS, object), "outputs": LOGITS}
    np.savez(tmp_path / NAME, **arrays)
    with pytest.raises(ValueError):
        read_predictions(tmp_path)


def test_images_is_the_number_of_labels():
    assert Predictions(LABELS, SILENT, LAYERS).images == 50
