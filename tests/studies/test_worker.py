import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from bnhead.devices import environment
from bnhead.studies import pool_local, worker
from bnhead.studies.pool import Job


def outcome_of(place):
    """All of a run's files that equal settings must make equal: figures, and the model's weights."""
    place = pathlib.Path(place)
    rows = list(csv.DictReader((place / "history.csv").read_text().splitlines()))
    for row in rows:
        del row["images_per_second"]
    weights = keras.saving.load_model(place / "model.keras").get_weights()
    return json.loads((place / "result.json").read_text()), rows, [w.tobytes() for w in weights]


@pytest.mark.slow
def test_runs_of_a_worker_are_bit_for_bit_those_of_train_on_one_thread(short_config, tmp_path):
    configs = [
        short_config(seed=seed, head=head, workdir=str(tmp_path / f"{head}{seed}"))
        for head, seed in (("bn_fc", 0), ("bn_fc", 3), ("dropout0.5_fc", 3), ("bn_fc", 4), ("gbn16_fc", 3))
    ]
    with pool_local.Pool(1) as pool:
        jobs = [Job(config.workdir, config.head, config, worker.train_one) for config in configs]
        assert [e.detail["status"] for e in pool.run(jobs) if e.state == "done"] == ["finished"] * 5
    for config in configs:
        alone = dataclasses.replace(config, workdir=f"{config.workdir}-alone")
        given = [f"--{name}={value}" for name, value in dataclasses.asdict(alone).items()]
        subprocess.run(
            [sys.executable, "-m", "bnhead", "train", *given],
            env={**os.environ, **worker.ENVIRONMENT},
            check=True,
            capture_output=True,
        )
        assert outcome_of(config.workdir) == outcome_of(alone.workdir), config


@pytest.mark.slow
def test_another_number_of_threads_gives_other_bits(short_config, tmp_path):
    """Why a study fixes it: this fails where TensorFlow splits no sum, and then nothing needs fixing."""
    config = short_config(workdir=str(tmp_path / "one"), batch_size=256)
    with pool_local.Pool(1) as pool:
        list(pool.run([Job("x", "", config, worker.train_one)]))
    other = dataclasses.replace(config, workdir=str(tmp_path / "two"))
    given = [f"--{name}={value}" for name, value in dataclasses.asdict(other).items()]
    env = {**os.environ, "TF_NUM_INTRAOP_THREADS": "2"}
    command = [sys.executable, "-m", "bnhead", "train", *given]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert outcome_of(config.workdir)[2] != outcome_of(other.workdir)[2]


def test_what_is_told_of_the_data(short_config, monkeypatch):
    monkeypatch.setattr(worker, "start_keras", lambda: keras)  # no threads are set in this process
    facts = worker.look_at_data(short_config(), print)
    assert {key: facts[key] for key in ("name", "train", "test", "classes")} == {
        "name": "digits/1.0.0",
        "train": 1437,
        "test": 360,
        "classes": 10,
    }
    assert len(facts["train_sha256"]) == 64
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: False)
    facts = worker.look_at_data(short_config(mixed_precision="auto"), print)
    assert facts["choices"]["fields"]["mixed_precision"] is False and len(facts["choices"]["lines"]) == 1
    rotated = short_config(dataset="digits_rotation", task="regression")
    assert worker.look_at_data(rotated, print)["classes"] is None


def test_the_pace_of_a_run_goes_by_its_first_steps(short_config, monkeypatch):
    monkeypatch.setattr(worker, "start_keras", lambda: keras)
    config = short_config(epochs=1000, batch_size=128)
    started = time.perf_counter()
    seconds = worker.pace(config, print)["seconds"]
    # an epoch takes less than all of this took, and a step of this net over a millisecond
    assert 1000 * 11 * 1e-3 < seconds < 1000 * (time.perf_counter() - started)
    assert not pathlib.Path(config.workdir).exists()
    assert worker.pace(short_config(batch_size=1437), print)["seconds"] > 0, "of epochs of one step"


@pytest.mark.slow
def test_a_run_tells_its_epochs_and_its_figures(short_config, monkeypatch):
    monkeypatch.setattr(worker, "start_keras", lambda: keras)
    told, config = [], short_config()
    outcome = worker.train_one(config, told.append)
    assert told[0] == {"share": 0.1}, "the first of two epochs of 5 steps"
    result = json.loads((pathlib.Path(config.workdir) / "result.json").read_text())
    assert outcome["status"] == "finished" and outcome["test_accuracy"] == result["test_accuracy"]
    assert outcome["dead"] == result["dead/head_fc/dataset"]
    assert outcome["seconds"] > 0 and np.isfinite(outcome["test_accuracy"])
