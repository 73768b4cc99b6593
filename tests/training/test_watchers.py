import csv
from pathlib import Path

from bnhead.training import train


def directory(config):
    return Path(config.workdir)


def test_history_has_a_row_per_epoch(short_run):
    config, result = short_run
    rows = list(csv.DictReader((directory(config) / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    columns = {"loss", "accuracy", "test_loss", "test_accuracy", "learning_rate", "images_per_second"}
    assert columns | {"dead/head_fc/per_input"} <= set(rows[0])
    assert float(rows[-1]["test_accuracy"]) == result["test_accuracy"]
    assert float(rows[-1]["dead/head_fc/dataset"]) == result["dead/head_fc/dataset"]


def test_named_layers_are_counted(short_config):
    result = train(short_config(epochs=1, dead_layers="stage3_block1_relu2,head_fc", probe_examples=100))
    assert result["dead/stage3_block1_relu2/inputs"] == result["dead/head_fc/inputs"] == 100
    assert result["dead/head_fc/bound"] == 0.03
