import keras
import pytest

from bnhead.errors import UsageError
from tests.comparison.nets import compared


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"build": None}, "build and heads, or builders"),
        ({"names": ("fc",)}, "heads must be at least 2"),
        ({"names": ("fc", "fc")}, "heads must all differ"),
        ({"control": "gap"}, "control must be one of fc, bn_fc"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"seeds": [3, 3]}, "seeds must increase"),
        ({"seeds": []}, "seeds must be at least 1"),
        ({"better": "bigger"}, "better must be 'higher' or 'lower'"),
        ({"metric": "auc"}, "delta must be set for metric 'auc'"),
        ({"metric": "r2"}, "metric 'r2' is not measured for classification"),
        ({"build": lambda head, seed: keras.Sequential([keras.Input((5,))])}, "not compiled"),
        ({"build": lambda head, seed: None}, "returned NoneType"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compared(tmp_path / "study", **arguments)
    assert not (tmp_path / "study").exists()
