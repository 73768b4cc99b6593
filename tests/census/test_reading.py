import math

import pytest

from bnhead.census.reading import read_layer

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("dead", "silent", "activation", "sentence"),
    [
        (0.0, 0.521, "relu", "no dead units; 52 % silent per input is usual for ReLU"),
        (0.0898, 0.3, "relu", "9.0 % dead; 30 % silent per input is usual for ReLU"),
        (0.004, 0.9, "relu", "0.4 % dead; 90 % silent per input is much for ReLU, where about half is usual"),
        (
            0.0,
            0.1,
            "relu",
            "no dead units; 10 % silent per input is little for ReLU, where about half is usual",
        ),
        (0.0, 0.521, "", "no dead units; 52 % silent per input"),
        (None, 0.5, "relu", ""),
        (0.0, math.nan, "relu", ""),
    ],
)
def test_the_sentence(dead, silent, activation, sentence):
    assert read_layer({"dataset": dead, "per_input": silent}, activation) == sentence


def test_figures_that_are_missing_give_no_sentence():
    assert read_layer({}) == ""
