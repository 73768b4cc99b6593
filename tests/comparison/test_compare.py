import json
import pathlib

import keras
import numpy as np
import pytest

import bnhead
from bnhead.comparison.compare import compare
from bnhead.errors import RunDirectoryError
from bnhead.runs.predictions import read_predictions
from tests.comparison.nets import DATA, X, Y, build, compared, results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "study"
    return folder, compared(folder, epochs=2)


def test_a_comparison_is_a_study(finished):
    folder, verdict = finished
    assert {"plan.json", "verdict.json", "report.html", "report.md"} <= {p.name for p in folder.iterdir()}
    plan = json.loads((folder / "plan.json").read_text())
    assert len(plan["runs"]) == 4 and plan["looks"] == [2] and plan["settings"]["epochs"] == 2
    (row,) = verdict.comparisons
    assert (row["control"], row["treatment"], row["n"], row["images"]) == ("fc", "bn_fc", 2, 30)
    assert row["word"] == verdict.word and verdict.word in str(verdict)
    assert {other["outcome"] for other in row["secondary"]} == {"dead_share", "silent_share", "nll"}


def test_figures_are_those_of_the_saved_model(finished):
    folder, _ = finished
    for run, result in results(folder).items():
        model = keras.saving.load_model(folder / "runs" / run / "model.keras")
        logits = model.predict(X[60:], verbose=0)
        assert result["test_accuracy"] == pytest.approx((logits.argmax(1) == Y[60:]).mean())
        kept = read_predictions(folder / "runs" / run)
        np.testing.assert_allclose(kept.outputs, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(kept.labels, Y[60:])
        assert result["dead/features/dataset"] == census_dead(model)


def census_dead(model):
    return bnhead.census.count(model, X[60:], ["features"]).figures()["dead/features/dataset"]


def test_a_finished_comparison_is_not_done_again(finished):
    folder, verdict = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    assert compared(folder, epochs=2).word == verdict.word
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("stacked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_stopped_comparison_goes_on(finished, tmp_path, monkeypatch, stacked):
    """Of runs that train together none is done before the last epoch."""
    if not stacked:
        monkeypatch.setattr("bnhead.comparison.run.can_stack", lambda data, fit: False)

    class Stopped(BaseException):
        pass

    calls = []

    def stops(head, seed):
        calls.append(seed)
        if len(calls) == 5:  # two for the plan, then in the third run
            raise Stopped
        return build(head, seed)

    with pytest.raises(Stopped):
        compared(tmp_path / "study", stops, epochs=2)
    done = results(tmp_path / "study")
    assert len(done) == (0 if stacked else 2)
    compared(tmp_path / "study", epochs=2)
    now, expected = results(tmp_path / "study"), results(finished[0])
    assert {run: now[run] for run in done} == done
    assert now.keys() == expected.keys()
    if stacked:
        assert now == expected  # as if it had not been stopped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"build": lambda head, seed: build(head, seed, width=7)}, "model_sha256 of fc"),
        ({"data": (DATA[0], (X[60:], Y[60:][::-1].copy()))}, "data_test_sha256"),
        ({"data": ((X[:60] + 1, Y[:60]), DATA[1])}, "data_train_sha256"),
        ({"epochs": 3}, "epochs 2 there, 3 now"),
        ({"names": ("fc", "bn_fc", "bn_fc_bn")}, "cells"),
    ],
)
def test_another_comparison_in_its_directory_is_refused_by_name(finished, options, message):
    with pytest.raises(RunDirectoryError, match=message):
        compared(finished[0], **{"epochs": 2, **options})


def test_it_is_public():
    assert bnhead.compare is compare and "compare" in dir(bnhead)
    assert pathlib.Path(compare.__code__.co_filename).parent.name == "comparison"
