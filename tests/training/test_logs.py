import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnhead.training import train
from bnhead.training.logs import Share, cut_events


def events(config, run):
    return EventAccumulator(str(Path(config.workdir) / run), {"tensors": 0}).Reload()


def scalars(accumulator, tag):
    lines = accumulator.Tensors(tag)
    return [e.step for e in lines], [float(tf.make_ndarray(e.tensor_proto)) for e in lines]


@pytest.mark.parametrize(
    ("run", "tag", "column"),
    [
        ("train", "loss", "loss"),
        ("test", "loss", "test_loss"),
        ("train", "accuracy", "accuracy"),
        ("test", "accuracy", "test_accuracy"),
        ("train", "learning_rate", "learning_rate"),
        ("train", "images_per_second", "images_per_second"),
        ("test", "dead/head_fc/per_input", "dead/head_fc/per_input"),
        ("test", "dead/head_fc/dataset", "dead/head_fc/dataset"),
        ("test", "details/head_fc/always_on", "dead/head_fc/always_on"),
    ],
)
def test_tensorboard_shows_what_history_has(short_run, run, tag, column):
    config, _ = short_run
    rows = list(csv.DictReader((Path(config.workdir) / "history.csv").read_text().splitlines()))
    steps, values = scalars(events(config, run), tag)
    assert steps == [1, 2]
    np.testing.assert_allclose(values, [float(row[column]) for row in rows], rtol=1e-6)


def test_tensorboard_tells_what_was_run(short_run):
    config, _ = short_run
    text = tf.make_ndarray(events(config, "train").Tensors("run")[0].tensor_proto).item().decode()
    assert "`resnet8`, head `bn_fc`: 2x2x64 -> gap" in text


@pytest.mark.slow
def test_weight_histograms_come_on_request(short_run, short_config):
    config, _ = short_run
    tags = events(config, "train").Tags()["tensors"]
    assert {"head_fc/kernel", "head_bn/moving_variance", "stem_conv/kernel"} <= set(tags)
    without = short_config(epochs=1)
    train(without)
    assert not any("kernel" in tag for tag in events(without, "train").Tags()["tensors"])


def test_learning_rate_is_that_of_the_epochs_end(short_run):
    config, _ = short_run
    _, rates = scalars(events(config, "train"), "learning_rate")
    assert rates[-1] == pytest.approx(0, abs=1e-9) and rates[0] > 0.03


def test_cutting_events_leaves_what_is_no_event_file_and_what_lies_behind_a_link(tmp_path):
    run, shared = tmp_path / "train", tmp_path / "shared"
    for folder in (run, shared, tmp_path / "mine"):
        folder.mkdir()
        (folder / "events.out.tfevents.1.a").write_bytes(b"12345678")
        (folder / "events.out.tfevents.2.other").write_bytes(b"12345678")
        (folder / "notes.txt").write_text("mine")
    (tmp_path / "test").symlink_to(shared)
    sizes = {f"{folder}/events.out.tfevents.1.a": 3 for folder in ("train", "test")}
    assert cut_events(tmp_path, sizes) == []
    assert sorted(path.name for path in run.iterdir()) == ["events.out.tfevents.1.a", "notes.txt"]
    assert len(list((tmp_path / "mine").iterdir())) == 3  # no folder of a run
    assert len(list(shared.iterdir())) == 3  # other runs' events and somebody's notes are there
    assert (run / "events.out.tfevents.1.a").stat().st_size == 3
    assert (shared / "events.out.tfevents.1.a").stat().st_size == 3
    assert (shared / "events.out.tfevents.2.other").stat().st_size == 8


def test_the_share_of_steps_is_reported_after_the_first_and_then_every_second(monkeypatch):
    now, reported = [100.0], []
    monkeypatch.setattr("bnhead.training.logs.time.monotonic", lambda: now[0])
    share = Share(reported.append)
    share.set_params({"epochs": 2, "steps": 5})
    for epoch in (0, 1):
        share.on_epoch_begin(epoch)
        for batch in range(5):
            share.on_train_batch_end(batch)
            now[0] += 0.4
    assert reported == [0.1, 0.4, 0.7, 1.0]


def test_a_run_is_a_row_of_hparams(short_run):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    config, _ = short_run
    metadata = events(config, "test").summary_metadata
    data = {
        tag: HParamsPluginData.FromString(one.plugin_data.content)
        for tag, one in metadata.items()
        if one.plugin_data.plugin_name == "hparams"
    }
    hparams = data["_hparams_/session_start_info"].session_start_info.hparams
    assert set(hparams) == set(config.settings())
    assert hparams["head"].string_value == "bn_fc" and hparams["seed"].string_value == str(config.seed)
    experiment = data["_hparams_/experiment"].experiment
    first = {info.name for info in experiment.hparam_infos if info.differs}
    assert first == {"backbone", "dataset", "epochs", "head", "seed"}
    named = [info.name.tag for info in experiment.metric_infos]
    assert named == ["accuracy", "loss", "dead/head_fc/dataset", "dead/head_fc/per_input"]
    assert set(named) <= set(events(config, "test").Tags()["tensors"])


def test_the_dead_and_the_silent_units_have_a_group_for_themselves(short_run):
    config, _ = short_run
    tags = [tag for tag in events(config, "test").Tags()["tensors"] if tag.startswith("dead/")]
    assert tags == ["dead/head_fc/dataset", "dead/head_fc/per_input"]
