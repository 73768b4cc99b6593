"""Two stages: the head on features, then the whole net, in one history."""

import json
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.devices.replicas import Replicas
from bnhead.errors import Interrupted
from bnhead.heads.surgery import is_of_a_head
from bnhead.runs.directory import FROZEN, RunDirectory
from bnhead.training import TrainConfig, train
from bnhead.training.build import Reuse
from bnhead.training.run import prepare_training
from bnhead.training.stages import frozen_stage, go_on
from bnhead.training.watchers import Watchers
from tests.training import kills
from tests.training.test_resume import SignalAt

STEPS = 5  # of an epoch
SETTINGS = {"epochs": 4, "unfreeze_at": 2, "head": "bn_dropout0.3_fc", "validation": 0.1}


@pytest.fixture(scope="module")
def finished(short_config):
    config = short_config(**SETTINGS)
    return config, train(config)


def weights_of(path, *, head):
    layers = keras.saving.load_model(path).layers
    return {
        f"{layer.name} {number}": weight
        for layer in layers
        if is_of_a_head(layer.name) == head
        for number, weight in enumerate(layer.get_weights())
    }


def test_history_is_of_both_stages_and_the_first_is_a_frozen_run(finished, short_config):
    _, result = finished
    assert result.history["epoch"] == [1, 2, 3, 4] and result["epochs"] == 4
    alone = {key: value for key, value in SETTINGS.items() if key != "unfreeze_at"} | {"epochs": 2}
    frozen = train(short_config(**alone, freeze_backbone=True, augment="none"))
    for name in ("loss", "test_accuracy", "validation_loss", "learning_rate"):
        assert result.history[name][:2] == frozen.history[name]
    assert result.history["learning_rate"][-1] == pytest.approx(0, abs=1e-8)
    assert result["backbone"] == "frozen for 2 epochs, then trained"


def test_the_guess_is_that_before_the_first_stage(short_config):
    config = short_config(epochs=2, unfreeze_at=1, measure="initial", augment="none")
    result = train(config)
    first = json.loads((Path(config.directory) / FROZEN / "result.json").read_text())
    names = [name for name in result if name.startswith("mechanisms/initial")]
    assert names and {name: result[name] for name in names} == {name: first[name] for name in names}


def test_the_second_stage_alone_is_attacked():
    assert frozen_stage(TrainConfig(unfreeze_at=1, epochs=2, robustness=True)).robustness is False


def test_the_backbone_trains_after_the_first_stage_alone(finished, short_config):
    config, _ = finished
    stages = [Path(config.workdir) / FROZEN / "model.keras", Path(config.workdir) / "model.keras"]
    first, second = (weights_of(path, head=False) for path in stages)
    initial = prepare_training(short_config(**SETTINGS), Replicas(), Reuse()).model
    for layer in initial.layers:
        for number, weight in enumerate([] if is_of_a_head(layer.name) else layer.get_weights()):
            np.testing.assert_array_equal(first[f"{layer.name} {number}"], weight)
    assert all((first[name] != second[name]).any() for name in first)


def test_the_second_stage_begins_with_the_head_of_the_first(finished, short_config):
    config, _ = finished
    feed, model, probe, *_, make_head = prepare_training(config, Replicas(), Reuse())
    directory = RunDirectory(config.directory)
    watchers = Watchers(config, directory, feed, model, probe)
    go_on(directory, make_head(), feed, model, watchers)
    figures = model.evaluate(feed.test(), verbose=0, return_dict=True)
    assert figures["loss"] == pytest.approx(watchers.history.rows[-1]["test_loss"], rel=1e-5)
    assert len(watchers.history.rows) == 2 and watchers.best.record["epoch"] in (1, 2)
    assert feed.first_step == 2 * STEPS


SLOW = [pytest.param(step, marks=pytest.mark.slow) for step in (STEPS + 2, 2 * STEPS)]


@pytest.mark.parametrize("stopped", [*SLOW, 3 * STEPS + 2])  # in a stage, between the two, in the other
def test_a_run_that_was_stopped_in_a_stage_ends_in_the_same_bits(finished, short_config, stopped, capsys):
    config = short_config(**SETTINGS, checkpoint_seconds=1e6)
    with pytest.raises(Interrupted):
        train(config, [SignalAt(signal.SIGTERM, stopped)])
    train(config)
    assert f"goes on after step {stopped} of" in capsys.readouterr().err or stopped == 2 * STEPS
    whole, resumed = (kills.evidence(run.workdir) for run in (finished[0], config))
    assert kills.unlike(whole, resumed) == []


def test_norms_that_are_put_in_change_no_output_yet(short_config):
    config = short_config(epochs=2, unfreeze_at=1, insert_bn=True, head="bn_fc_bn", augment="none")
    assert frozen_stage(config).head == "fc"
    frozen = train(frozen_stage(config))
    feed, model, probe, *_, make_head = prepare_training(config, Replicas(), Reuse())
    directory = RunDirectory(config.directory)
    go_on(directory, make_head(), feed, model, Watchers(config, directory, feed, model, probe))
    loss = model.evaluate(feed.test(), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(frozen["test_loss"], rel=1e-4)
    for name in ("head_bn", "head_bn_2"):  # and the statistics are those of the norm's inputs in evaluation
        norm = model.get_layer(name)
        values = keras.Model(model.input, norm.input).predict(feed.data.train.images, verbose=0)
        np.testing.assert_allclose(norm.moving_mean, values.mean(0), atol=0.1 * values.std())
        np.testing.assert_allclose(norm.gamma, np.sqrt(norm.moving_variance + norm.epsilon), rtol=1e-6)
    assert "batch norms of the head put in then" in train(config)["backbone"]


def test_the_best_epoch_of_the_frozen_stage_is_the_runs(short_config):
    config = short_config(
        epochs=2, unfreeze_at=1, head="fc", validation=0.1, backbone_rate=1e6, warmup_epochs=0
    )
    result = train(config)
    assert result["status"] == "diverged" and result["best"]["epoch"] == 1
    directory = Path(config.workdir)
    assert (directory / "best.keras").read_bytes() == (directory / FROZEN / "best.keras").read_bytes()
    assert result["best"]["test_loss"] == result.history["test_loss"][0]


def test_frozen_norms_and_a_rate_of_zero_leave_the_backbone_as_it_was(short_config):
    config = short_config(epochs=2, unfreeze_at=1, backbone_rate=0.0, backbone_bn="frozen", warmup_epochs=0)
    result = train(config)
    first, second = (
        weights_of(Path(config.workdir) / path, head=False)
        for path in (f"{FROZEN}/model.keras", "model.keras")
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert result["backbone"].endswith("at 0 of the head's learning rate, batch norms in inference mode")


def test_norms_in_training_mode_move_without_a_rate(short_config):
    config = short_config(epochs=1, backbone_rate=0.0)
    train(config)
    initial = prepare_training(config, Replicas(), Reuse()).model
    after = weights_of(Path(config.workdir) / "model.keras", head=False)
    norm = initial.get_layer("stem_bn")
    assert (after["stem_bn 2"] != norm.get_weights()[2]).any()  # the moving mean
    np.testing.assert_array_equal(after["stem_bn 0"], norm.get_weights()[0])


def test_layers_of_the_backbone_are_counted_in_the_second_stage_alone(short_config):
    config = short_config(epochs=2, unfreeze_at=1, dead_layers="head_fc,stage1_block1_relu1")
    assert frozen_stage(config).dead_layers == "head_fc"
    history = train(config).history
    assert np.isnan(history["dead/stage1_block1_relu1/dataset"][0])
    assert history["dead/stage1_block1_relu1/dataset"][1] >= 0 <= history["dead/head_fc/dataset"][0]


def test_a_directory_with_nothing_but_a_first_stage_is_the_runs(finished, short_config, tmp_path):
    shutil.copytree(Path(finished[0].workdir) / FROZEN, tmp_path / "run" / FROZEN)
    RunDirectory(tmp_path / "run").check(finished[0].settings())
    (tmp_path / "run" / "other.txt").write_text("")
    with pytest.raises(Exception, match="is not empty and holds no run"):
        RunDirectory(tmp_path / "run").check(finished[0].settings())
    status = json.loads((Path(finished[0].workdir) / FROZEN / "status.json").read_text())
    assert status["status"] == "finished"
