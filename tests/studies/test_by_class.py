import numpy as np
import pytest

from bnhead.studies.by_class import adjusted, by_class, minorities

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)


def test_recall_precision_and_f1_by_counting():
    outputs, labels = RNG.normal(size=(60, 5)), RNG.integers(0, 4, 60)  # class 4 has no test images
    outputs[:, 3] -= 9  # and class 3 is never answered
    figures = by_class(outputs, labels)
    answers = [max(range(5), key=lambda c: row[c]) for row in outputs]
    for c in range(4):
        pairs = [(a == c, y == c) for a, y in zip(answers, labels, strict=True)]
        right, given, tested = (sum(map(test, pairs)) for test in (all, lambda p: p[0], lambda p: p[1]))
        assert figures.recall[c] == pytest.approx(right / tested)
        assert figures.precision[c] == pytest.approx(right / given if given else 0)
        both = figures.precision[c] + figures.recall[c]
        harmonic = 2 * figures.precision[c] * figures.recall[c] / both if both else 0
        assert figures.f1[c] == pytest.approx(harmonic)
    assert figures.precision[3] == figures.recall[3] == figures.f1[3] == 0
    assert np.isnan([figures.recall[4], figures.precision[4], figures.f1[4]]).all()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([100, 1, 1, 1], [1, 2, 3]),  # one majority
        ([100, 100, 1, 1], [2, 3]),
        ([50, 50, 5, 5], [2, 3]),
        ([100, 46, 21, 10], [2, 3]),  # a long tail, of which the mean is 44
        ([7, 7, 7], []),
    ],
)
def test_a_minority_class_has_fewer_examples_than_the_mean(counts, expected):
    assert np.flatnonzero(minorities(counts)).tolist() == expected


def test_an_adjusted_bayes_classifier_is_that_of_equal_classes():
    """Two normal classes at 0 and 1 with shares .9 and .1: the adjusted answer changes at 1/2."""
    x, prior = np.linspace(-3, 4, 7001), [0.9, 0.1]
    density = np.stack([-(x**2) / 2, -((x - 1) ** 2) / 2], 1)
    logits = density + np.log(prior)
    after = adjusted(logits.astype("float32"), prior, "classification")
    assert x[after.argmax(1) == 1][0] == pytest.approx(0.5, abs=2e-3)
    assert x[logits.argmax(1) == 1][0] == pytest.approx(0.5 + np.log(9), abs=2e-3)
    odds = np.log(np.array(prior) / (1 - np.array(prior)))
    np.testing.assert_allclose(adjusted(logits, prior, "multilabel"), logits - odds)
