import numpy as np
import pytest
import scipy.optimize
import scipy.special

from bnhead.mechanisms.calibration import CalibrationSums

pytestmark = pytest.mark.quick


def measured(logits, labels, pieces=5, seed=0):
    sums = CalibrationSums(seed)
    for part in np.array_split(np.arange(len(labels)), pieces):
        sums.add(logits[part], labels[part])
    return sums.result()


def calibrated(n, sharpness, classes=10, seed=0):
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * sharpness
    draws = rng.random(n)[:, None]
    labels = (scipy.special.softmax(logits, 1).cumsum(1) < draws).sum(1)
    return logits.astype("float32"), np.minimum(labels, classes - 1)


def test_accuracy_loss_margin_and_ece_written_out():
    logits, labels = calibrated(300, 2.0)
    logits = logits * 1.7
    result = measured(logits, labels)
    p = scipy.special.softmax(logits.astype("float64"), 1)
    confidence, correct = p.max(1), p.argmax(1) == labels
    ece = 0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            ece += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    margins = [row[c] - np.delete(row, c).max() for row, c in zip(logits, labels, strict=True)]
    assert result.accuracy == correct.mean() and result.ece == pytest.approx(ece)
    assert result.loss == pytest.approx(-np.log(p[np.arange(300), labels]).mean())
    assert result.margin == pytest.approx(np.mean(margins))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.7])
def test_the_temperature_minimises_the_loss(temperature):
    logits, labels = calibrated(2000, 2.0)
    logits = logits * temperature

    def loss(t):
        return -scipy.special.log_softmax(logits.astype("float64") / t, 1)[np.arange(2000), labels].mean()

    best = scipy.optimize.minimize_scalar(
        loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}
    ).x
    assert measured(logits, labels).temperature == pytest.approx(best, rel=2e-3)
    assert best == pytest.approx(temperature, rel=0.08)


def test_answers_that_are_all_right_have_no_temperature():
    logits = np.eye(4)[[0, 1, 2, 3]] * 5
    assert np.isnan(measured(logits, np.arange(4)).temperature)


@pytest.mark.parametrize(("n", "sharpness"), [(360, 3.0), (1000, 6.0), (4000, 3.0)])
def test_the_floor_is_what_calibrated_models_score(n, sharpness):
    values = [measured(*calibrated(n, sharpness, seed=s), 1) for s in range(40)]
    scores = np.array([v.ece for v in values])
    assert np.mean([v.ece_floor for v in values]) == pytest.approx(scores.mean(), rel=0.12)
    assert (scores > np.mean([v.ece_floor_high for v in values])).mean() < 0.2
    assert np.mean([v.ece_excess for v in values]) == pytest.approx(0, abs=0.004)


def test_the_floor_falls_with_the_examples_and_the_accuracy():
    """Of 360 examples about .01 at an accuracy of .98 and .04 at .86; a tenth as much of 10,000 at .98."""
    sharp, blunt = (measured(*calibrated(360, s)) for s in (60.0, 9.0))
    assert sharp.accuracy > 0.96 and sharp.ece_floor == pytest.approx(0.009, abs=0.006)
    assert 0.82 < blunt.accuracy < 0.92 and blunt.ece_floor == pytest.approx(0.035, abs=0.01)
    assert measured(*calibrated(10_000, 60.0)).ece_floor < 0.4 * sharp.ece_floor


def test_an_overconfident_model_is_far_above_its_floor():
    logits, labels = calibrated(1000, 2.0)
    result = measured(logits * 4, labels)
    assert result.temperature > 3 and result.ece_excess > 3 * result.ece_floor_high


def test_extreme_logits():
    result = measured(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), 1)
    assert result.loss == 5000 and result.accuracy == 0.5 and result.ece == pytest.approx(0.5)
