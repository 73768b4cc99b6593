"""Runs that train in a stack are the runs that train alone."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bnhead.runs.history import read_history
from bnhead.runs.predictions import read_predictions
from bnhead.studies import pool_frozen, worker
from bnhead.studies.pool import Job
from bnhead.training import train
from bnhead.training.reopen import open_source


class Others(contextlib.nullcontext):
    """A pool that only notes what it gets."""

    def __init__(self):
        super().__init__()
        self.jobs = []

    def run(self, jobs):
        self.jobs += jobs
        return iter(())


@pytest.fixture(autouse=True)
def keras_as_it_is(monkeypatch):
    monkeypatch.setattr(worker, "start_keras", lambda: None)


@pytest.fixture
def jobs_of(short_config, tmp_path):
    def jobs(heads=("fc", "bn_dropout0.3_fc16"), seeds=(0, 1), **settings):
        defaults = {"freeze_backbone": True, "augment": "none", "weights_control": "random", "epochs": 3}
        defaults |= {"pretrain_on": "digits", "pretrain_epochs": 1, "learning_rate": 0.05}
        configs = [
            short_config(
                **{**defaults, **settings}, head=head, seed=seed, workdir=str(tmp_path / f"{head}-{seed}")
            )
            for seed in seeds
            for head in heads
        ]
        return [Job(config.workdir, config.head, config, worker.train_one) for config in configs]

    return jobs


def alone(job, tmp_path):
    config = dataclasses.replace(job.config, workdir=str(tmp_path / "alone" / Path(job.id).name))
    train(config)
    return Path(config.workdir)


def require_alike(stacked, single):
    names, expected = ({path.name for path in run.iterdir()} for run in (stacked, single))
    assert names - expected == {"head.keras"} and expected - names == {"model.keras"}
    nets = [open_source(str(run)).model for run in (stacked, single)]
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype("uint8")
    np.testing.assert_allclose(*(net.predict(images, verbose=0) for net in nets), rtol=1e-3, atol=1e-3)
    assert nets[0].count_params() == nets[1].count_params()
    assert (stacked / "config.json").read_text() == (single / "config.json").read_text()
    for row, expected in zip(read_history(stacked), read_history(single), strict=True):
        assert list(row) == list(expected)
        for name in ("epoch", "loss", "accuracy", "test_loss", "test_accuracy", "learning_rate"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
        assert row["images_per_second"] > 0
    outputs = [read_predictions(path).outputs for path in (stacked, single)]
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-3)
    results = [json.loads((path / "result.json").read_text()) for path in (stacked, single)]
    assert results[0].keys() == results[1].keys()
    for name in ("parameters", "data", "head", "epochs", "status", "dead/head_fc/dataset"):
        assert results[0][name] == results[1][name]


def test_stacked_runs_are_single_ones(jobs_of, tmp_path):
    jobs, others = jobs_of(), Others()
    with pool_frozen.Pool(others) as pool:
        events = list(pool.run(jobs))
    assert not others.jobs and [e.job for e in events if e.state == "started"] == jobs
    done = {event.job.id: event.detail for event in events if event.state == "done"}
    assert all(done[job.id]["status"] == "finished" and done[job.id]["seconds"] > 0 for job in jobs)
    for job in jobs[1:3]:  # a head of each, a seed of each
        require_alike(Path(job.id), alone(job, tmp_path))


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on(jobs_of, tmp_path):
    jobs = jobs_of(seeds=(0,), checkpoint_seconds=0.0)
    running = pool_frozen.Pool(Others()).run(jobs)
    while next(running).detail.get("share", 0) < 0.5:
        pass
    running.close()
    assert json.loads((Path(jobs[0].id) / "status.json").read_text()) == {"status": "interrupted"}
    assert not (Path(jobs[0].id) / "lock").exists()
    events = list(pool_frozen.Pool(Others()).run(jobs))
    shares = [event.detail["share"] for event in events if event.state == "progress"]
    assert min(shares) > 0 and sum(event.state == "done" for event in events) == 2
    require_alike(Path(jobs[1].id), alone(jobs[1], tmp_path))
    assert not [event for event in pool_frozen.Pool(Others()).run(jobs) if event.state == "progress"]


def test_what_cannot_be_stacked_goes_to_the_other_pool(jobs_of, capsys):
    others = Others()
    whole = jobs_of(seeds=(0,), freeze_backbone=False)
    weighted = jobs_of(heads=("bn_fc",), seeds=(0,), class_weights="inverse")
    assert list(pool_frozen.Pool(others).run([*whole, *weighted])) == []
    assert others.jobs == [*whole, *weighted]
    assert "bn_fc is trained alone: its loss is adjusted to the classes" in capsys.readouterr().err


def test_other_jobs_are_done_in_this_process(jobs_of):
    (job, *_) = jobs_of()
    look = Job("data", "", job.config, worker.look_at_data)
    (event,) = pool_frozen.Pool(Others()).run([look])
    assert event.state == "done" and event.detail["name"].startswith("digits/")


def test_a_stack_holds_no_more_runs_than_files_may_be_open(jobs_of, monkeypatch):
    monkeypatch.setattr(pool_frozen, "MOST_RUNS", 1)
    states = [event.state for event in pool_frozen.Pool(Others()).run(jobs_of(heads=("fc",), epochs=1))]
    assert states == ["started", "progress", "done", "started", "progress", "done"]
