import numpy as np
import pytest

from bnhead.data.subsets import (
    class_sizes,
    imbalanced,
    limited,
    noisy_labels,
    parse_imbalance,
    validation_split,
)
from bnhead.errors import UsageError

CIFAR = np.repeat(np.arange(10), 5000)


def test_the_long_tail_has_the_published_counts():
    """CIFAR-10-LT and CIFAR-100-LT with 12,406 and 10,847 examples: Cao et al. 2019."""
    published = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert class_sizes("longtail:100", [5000] * 10) == published and sum(published) == 12_406
    assert np.bincount(CIFAR[imbalanced(CIFAR, "longtail:100", 10)]).tolist() == published
    hundred = class_sizes("longtail:100", [500] * 100)
    assert (hundred[0], hundred[-1], sum(hundred)) == (500, 5, 10_847)


@pytest.mark.parametrize(
    ("text", "counts", "sizes"),
    [
        ("none", [3, 9], [3, 9]),
        ("step:10", [100] * 5, [100, 100, 10, 10, 10]),
        ("one_majority:100", [1000] * 4, [1000, 10, 10, 10]),
        ("two_majorities:8", [1000] * 4, [1000, 1000, 125, 125]),
        ("longtail:10", [30, 300, 30], [30, 37, 12]),  # 120, 37.9, 12, as far as there are
        ("one_majority:1000", [50, 50], [50, 1]),
        ("longtail:1", [7, 7, 7], [7, 7, 7]),
    ],
)
def test_sizes(text, counts, sizes):
    assert class_sizes(text, counts) == sizes


def test_subsets_are_nested_fixed_and_not_the_first_of_each_class():
    some, more = (set(imbalanced(CIFAR, f"longtail:{ratio}", 10)) for ratio in (100, 50))
    assert some < more
    assert set(imbalanced(CIFAR, "one_majority:100", 10)) < set(imbalanced(CIFAR, "step:100", 10))
    again = imbalanced(CIFAR, "longtail:100", 10)
    assert set(again) == some and (np.diff(again) > 0).all()
    last = again[again >= 45_000]
    assert len(last) == 50 and last.max() > 49_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("longtale:100", "did you mean 'longtail'.*there are none, longtail:100, step:100, one_majority:100"),
        ("longtail", "at least 1, as in longtail:100, got 'longtail'"),
        ("step:0.5", "at least 1, as in step:100, got 'step:0.5'"),
        ("step:nan", "at least 1"),
        ("step:inf", "at least 1"),
        ("step:ten", "at least 1"),
    ],
)
def test_bad_imbalances(text, message):
    with pytest.raises(UsageError, match=message):
        parse_imbalance(text)


def test_validation_is_cut_from_every_class_and_nothing_is_lost():
    labels = np.repeat(np.arange(4), [10, 20, 30, 41])
    train, validation = validation_split(labels, 0.1, 4)
    assert np.bincount(labels[validation]).tolist() == [1, 2, 3, 4]
    assert sorted([*train, *validation]) == list(range(101))
    np.testing.assert_array_equal(validation, validation_split(labels, 0.1, 4)[1])
    assert set(validation) < set(validation_split(labels, 0.3, 4)[1])


def test_validation_of_numbers():
    train, validation = validation_split(np.linspace(0, 1, 50)[:, None], 0.2, 0)
    assert (len(train), len(validation)) == (40, 10) and not set(train) & set(validation)


def test_label_noise_is_symmetric_exact_and_nested():
    noisy = noisy_labels(CIFAR, 0.2, 10)
    wrong = noisy != CIFAR
    assert wrong.sum() == 10_000
    moved = np.zeros((10, 10), int)
    np.add.at(moved, (CIFAR[wrong], noisy[wrong]), 1)
    others = moved[~np.eye(10, dtype=bool)]
    assert abs(others - 10_000 / 90).max() < 5 * np.sqrt(10_000 / 90), "each of the others is as likely"
    more = noisy_labels(CIFAR, 0.4, 10)
    np.testing.assert_array_equal(more[wrong], noisy[wrong])
    np.testing.assert_array_equal(noisy_labels(CIFAR, 0.0, 10), CIFAR)
    assert (noisy_labels(CIFAR, 1.0, 10) != CIFAR).all()


def test_limited_keeps_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    some, more = limited(labels, 100, 3, "train"), limited(labels, 250, 3, "train")
    assert np.bincount(labels[some]).tolist() == [60, 30, 10] and len(more) == 250
    assert set(some) < set(more) and (np.diff(some) > 0).all()
    assert set(some) != set(limited(labels, 100, 3, "test"))
    assert len(limited(np.zeros((50, 2)), 20, 0, "train")) == 20
