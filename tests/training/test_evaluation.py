from pathlib import Path

import pytest

from bnhead.runs.predictions import read_predictions


def test_the_scores_of_a_run_are_those_of_its_predictions(short_run):
    """The test split is read once: loss and accuracy come from the outputs of the pass that counts."""
    config, result = short_run
    predictions = read_predictions(Path(config.workdir))
    assert predictions.layers == ("head_fc",) and predictions.images == 360
    assert predictions.accuracy().mean() == pytest.approx(result["test_accuracy"])
    loss = predictions.negative_log_likelihood("classification").mean()
    assert loss == pytest.approx(result["test_loss"], rel=1e-4)
    assert predictions.silent.mean() == pytest.approx(result["dead/head_fc/per_input"], rel=1e-5)
