import copy
import json
import pickle

import numpy as np
import pytest
from matplotlib import pyplot

from bnhead.errors import UsageError
from bnhead.runs.history import read_history
from bnhead.training import RunResult
from bnhead.training.summary import format_summary


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def result(short_run):
    return short_run[1]


def test_it_is_the_mapping_of_result_json(result):
    written = json.loads((result.directory / "result.json").read_text())
    assert isinstance(result, RunResult) and json.loads(json.dumps(result)) == {
        key: value for key, value in written.items() if key in result
    }


@pytest.mark.parametrize("way", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_are_whole(result, way):
    again = way(result)
    assert again == result and again.config == result.config and str(again) == str(result)


def test_it_prints_what_the_terminal_prints(result):
    seconds = json.loads((result.directory / "environment.json").read_text())["seconds"]
    assert str(result) == format_summary(result.config, result, seconds) and "time" in str(result)
    assert repr(result).startswith("<RunResult: bn_fc on digits: finished, test accuracy ")
    assert repr(result).count("\n") == 0 and repr(result).endswith("% dead>")


def test_the_dead_units_by_layer(result):
    assert list(result.dead) == ["head_fc"]
    figures = result.dead["head_fc"]
    assert figures["per_input"] == result["dead/head_fc/per_input"] and figures["inputs"] == 360


def test_the_history_and_its_data_frame(result):
    rows = read_history(result.directory)
    assert result.history["test_loss"] == [row["test_loss"] for row in rows] and len(rows) == 2
    births = result.history["dead/head_fc/births"]
    assert np.isnan(births).tolist() == [True, False], "NaN in the file alone"
    frame = result.to_frame()
    assert list(frame.index) == [1, 2] and frame["loss"].tolist() == result.history["loss"]


def test_the_table(result):
    html = result._repr_html_()
    assert "head_fc" in html and f"head: {result['head']}".replace(">", "&gt;") in html
    assert ">share of units silent on an input, on average<" in html


def test_curves(result):
    _, given = pyplot.subplots()
    assert result.plot_history(ax=given) is given and given.get_ylabel() == "accuracy"
    lines = {line.get_label(): list(line.get_ydata()) for line in given.get_lines()}
    assert lines == {"training": result.history["accuracy"], "test": result.history["test_accuracy"]}
    assert result.plot_history("loss").get_ylabel() == "loss"
    ax = result.plot_dead()
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert lines["dead"] == result.history["dead/head_fc/dataset"] and list(lines) == [
        "silent per input",
        "dead",
    ]


def test_names_that_the_history_lacks(result):
    with pytest.raises(UsageError, match="metric 'los' is not in the history; did you mean 'loss'"):
        result.plot_history("los")
    with pytest.raises(UsageError, match="layer 'head_f' was not counted; did you mean 'head_fc'"):
        result.plot_dead("head_f")
