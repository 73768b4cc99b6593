"""A run that was stopped ends as one that never was: the short form; `kills.py` is the long one."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.errors import DataError, Interrupted, UsageError
from bnhead.runs import checkpoints
from bnhead.training import TrainConfig, build, run, state, train
from tests.training import kills

STEPS = 5
STOPPED = 2 * STEPS + 2  # in the third of four epochs
HEAD = "dropout0.5_gbn16_fc"  # random states, moving averages and everything else at once


def config(workdir, data_dir, **settings):
    return TrainConfig(
        **{**kills.SETTINGS, "head": HEAD, "workdir": str(workdir), "data_dir": data_dir, **settings}
    )


class SignalAt(keras.callbacks.Callback):
    def __init__(self, number, steps):
        super().__init__()
        self.number, self.left = number, steps

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_dir):
    """What a run leaves that is never stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(config(workdir, data_dir))
    return kills.evidence(workdir)


def resumed(stopped, tmp_path, data_dir, callbacks=()):
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    (workdir / ".writing-abc").mkdir()  # by a process that was killed
    train(config(workdir, data_dir), callbacks)
    return workdir


class Counts(keras.callbacks.Callback):
    """A callback of a user's own, which remembers something."""

    def __init__(self):
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

    def state(self):
        return {"batches": self.batches}

    def resume(self, state):
        self.batches = state["batches"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, data_dir):
    """The directory of a run that SIGTERM ended in the midst of an epoch; a callback with a state saw it."""
    workdir, counts = tmp_path_factory.mktemp("stopped") / "run", Counts()
    with pytest.raises(Interrupted) as caught:
        # no other checkpoint than that of the signal, on a slow machine too
        train(config(workdir, data_dir, checkpoint_seconds=1e6), [counts, SignalAt(signal.SIGTERM, STOPPED)])
    assert caught.value.exit_status == 143 and counts.batches == STOPPED
    return workdir


def test_a_state_that_is_no_plain_data_is_said(tmp_path, data_dir):
    odd = Counts()
    odd.state = lambda: {"batches": np.zeros(2)}
    with pytest.raises(UsageError, match=r"callbacks: state\(\) must return plain data for JSON: .*ndarray"):
        train(config(tmp_path / "run", data_dir, checkpoint_seconds=0.0), [odd])


def test_a_signal_leaves_a_checkpoint_of_the_step_and_says_so(stopped):
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == [f"step-{STOPPED:010}"]
    assert json.loads((stopped / "status.json").read_text()) == {"status": "interrupted"}
    assert not (stopped / "result.json").exists() and not (stopped / "lock").exists()


def test_a_run_that_was_stopped_ends_in_the_same_bits(stopped, uninterrupted, tmp_path, data_dir, capsys):
    restored, new = Counts(), Counts()  # one more callback than there was
    workdir = resumed(stopped, tmp_path, data_dir, [restored, new])
    assert (restored.batches, new.batches) == (4 * STEPS, 4 * STEPS - STOPPED)
    assert kills.unlike(uninterrupted, kills.evidence(workdir)) == []
    assert not list(workdir.glob(".writing-*"))
    assert f"goes on after step {STOPPED} of {4 * STEPS}" in capsys.readouterr().err
    sessions = json.loads((workdir / "environment.json").read_text())["sessions"]
    assert [session["step"] for session in sessions] == [0, STOPPED]


def leave_out(monkeypatch, piece):
    """Makes a checkpoint lack one piece of state."""
    original = state.restore

    def restore(model, arrays):
        omitted = {name: value for name, value in state.captured(model).items() if piece in name}
        assert omitted, piece
        original(model, {**arrays, **omitted})

    if piece == "data order":
        monkeypatch.setattr(
            state, "divmod", lambda step, steps: (step // steps, step % steps and 1), raising=False
        )
    else:
        monkeypatch.setattr(state, "restore", restore)
        monkeypatch.setattr(run, "restore", restore)


@pytest.mark.parametrize(
    "piece",
    [
        "seed_generator_state",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("momentum", "moving_variance", "iteration", "head_fc_kernel", "total", "data order")
        ),
    ],
)
def test_a_run_that_lacks_a_piece_of_its_state_does_not(
    stopped, uninterrupted, tmp_path, data_dir, monkeypatch, piece
):
    leave_out(monkeypatch, piece)
    assert kills.unlike(uninterrupted, kills.evidence(resumed(stopped, tmp_path, data_dir))) != []


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_loudly(stopped, uninterrupted, tmp_path, data_dir, capsys):
    (newest,) = (stopped / "checkpoints").iterdir()
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    (workdir / "checkpoints" / newest.name).write_bytes(content)
    train(config(workdir, data_dir))
    printed = capsys.readouterr().err
    assert f"{newest.name} is not used: its bytes are not those that were written" in printed
    assert "starts again from the beginning" in printed
    assert kills.unlike(uninterrupted, kills.evidence(workdir)) == []


def test_a_run_does_not_go_on_with_other_data(stopped, tmp_path, data_dir, monkeypatch):
    """As of a folder that pictures were added to: an epoch's steps would be others."""
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    contents = {path: path.read_bytes() for path in (workdir / "checkpoints").iterdir()}
    load = build.load

    def fewer(**options):
        digits = load(**options)
        return dataclasses.replace(digits, train=digits.train.take(np.arange(1100)))

    with monkeypatch.context() as patch:
        patch.setattr(build, "load", fewer)
        with pytest.raises(DataError, match=r"other data, which differ in splits, .*batches"):
            train(config(workdir, data_dir))
    assert {path: path.read_bytes() for path in (workdir / "checkpoints").iterdir()} == contents


def swapped(split):
    """The same examples with labels swapped within the split, so that no summary of them differs."""
    return dataclasses.replace(split, labels=split.labels[::-1].copy())


def darker(split):
    """Other pixels, of the same kind."""
    return dataclasses.replace(split, images=split.images[..., ::-1, :].copy())


@pytest.mark.parametrize(
    ("split", "change"),
    [
        ("train", swapped),
        pytest.param("test", swapped, marks=pytest.mark.slow),
        pytest.param("test", darker, marks=pytest.mark.slow),
    ],
)
def test_a_run_does_not_go_on_with_what_a_summary_cannot_tell_apart(
    stopped, tmp_path, data_dir, monkeypatch, split, change
):
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    load = build.load

    def changed(**options):
        digits = load(**options)
        return dataclasses.replace(digits, **{split: change(getattr(digits, split))})

    with monkeypatch.context() as patch:
        patch.setattr(build, "load", changed)
        with pytest.raises(
            DataError, match=f"other data, which differ in .*the content of the {split} split"
        ):
            train(config(workdir, data_dir))


def test_a_checkpoint_of_another_net_is_set_aside_and_the_run_keeps_its_own(
    stopped, tmp_path, data_dir, capsys
):
    """As of a backbone's file that has been written anew."""
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    (newest,) = (workdir / "checkpoints").iterdir()
    good = checkpoints.decode_checkpoint(newest.read_bytes())
    foreign = dataclasses.replace(good, arrays={**good.arrays, "99999/kernel": np.zeros(3)})
    for step in range(1000, 1003):
        content = checkpoints.encode_checkpoint(dataclasses.replace(foreign, step=step))
        (workdir / "checkpoints" / f"step-{step:010}").write_bytes(content)
    with pytest.raises(Interrupted):
        train(config(workdir, data_dir), [SignalAt(signal.SIGTERM, 2)])
    assert "it is of another net" in capsys.readouterr().err
    assert (workdir / "checkpoints" / "step-0000000002").exists(), "its own are not the oldest"


def test_killed_at_random_instants(uninterrupted, tmp_path, data_dir):
    draw = random.Random(1)
    workdir = str(tmp_path / "run")
    ended = kills.killed_and_finished(workdir, data_dir, HEAD, draw, 2, kills=2, checkpoint_seconds=0.0)
    assert "-9" in ended[0] and ended[-1].endswith(": 0"), ended
    assert kills.unlike(uninterrupted, kills.evidence(workdir)) == [], ended


@pytest.mark.slow
def test_killed_at_random_instants_fifty_times():
    assert kills.main(["--runs=50"]) == 0


@pytest.mark.slow
def test_the_best_epoch_is_kept_apart_and_comes_back(tmp_path, data_dir, short_config):
    settings = {"validation": 0.2, "epochs": 3}
    workdir = tmp_path / "whole"
    result = train(config(workdir, data_dir, **settings))
    rows = (workdir / "history.csv").read_text().splitlines()
    names = rows[0].split(",")
    scores = [float(row.split(",")[names.index("validation_accuracy")]) for row in rows[1:]]
    best = max(range(3), key=scores.__getitem__)
    assert result["best"]["epoch"] == best + 1 and result["best"]["validation_accuracy"] == scores[best]
    model = keras.saving.load_model(workdir / "best.keras")
    from bnhead.data import load

    held_out = load("digits", data_dir, validation=0.2).validation
    right = model.predict(held_out.images, verbose=0).argmax(1) == held_out.labels
    assert right.mean() == pytest.approx(scores[best])


def test_another_process_is_turned_away_and_nothing_is_touched(stopped, tmp_path, data_dir):
    from bnhead.errors import RunDirectoryError
    from bnhead.runs import lock

    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    contents = {path: path.read_bytes() for path in Path(workdir).rglob("*") if path.is_file()}
    with lock.writer_lock(workdir), pytest.raises(RunDirectoryError, match="is being written by process"):
        train(config(workdir, data_dir))
    assert {path: path.read_bytes() for path in Path(workdir).rglob("*") if path.is_file()} == contents


def test_overwrite_removes_a_run_and_says_what(stopped, tmp_path, data_dir, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(stopped, workdir)
    with pytest.raises(Interrupted):  # the first step suffices
        train(config(workdir, data_dir, head="fc", overwrite=True), [SignalAt(signal.SIGTERM, 1)])
    printed = capsys.readouterr().err
    assert f"removed from {workdir}: environment.json, status.json, history.csv, checkpoints, " in printed
    assert json.loads((workdir / "config.json").read_text())["head"] == "fc"
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["step-0000000001"]


ON_JAX = """
import sys
from bnhead.errors import Interrupted
from bnhead.training import train
from tests.training import kills
from tests.training.test_resume import SignalAt, config

place, data_dir = sys.argv[1:]
train(config(f"{place}/whole", data_dir))
try:
    train(config(f"{place}/run", data_dir), [SignalAt(15, 12)])
    raise SystemExit("it was not interrupted")
except Interrupted:
    train(config(f"{place}/run", data_dir))
found = kills.unlike(kills.evidence(f"{place}/whole"), kills.evidence(f"{place}/run"))
assert not found, found
"""


@pytest.mark.slow
def test_on_jax_too(tmp_path, data_dir):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ON_JAX, str(tmp_path), data_dir],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0 and "goes on after step 12 of 20" in process.stderr, process.stderr[-2000:]
