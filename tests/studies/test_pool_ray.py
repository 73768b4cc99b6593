import importlib.util
import os
import pathlib
import signal
import sys

import pytest

from bnhead.errors import UsageError
from bnhead.studies import pool_local, pool_ray as engine, worker
from bnhead.studies.pool import Job
from bnhead.training.config import TrainConfig
from tests.studies import fake
from tests.studies.test_worker import outcome_of

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
# Ray's own
quiet = pytest.mark.filterwarnings("ignore")


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'engine ray needs Ray, .*: pip install "bnhead\[ray\]"'):
        engine.Pool(2)


def test_the_number_of_cpus_without_a_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert engine.cores() == pool_local.cores()


@pytest.mark.parametrize(
    ("total", "workers", "expected"),
    [(0, 4, 0.0), (2, 1, 1.0), (2, 2, 1.0), (2, 3, 0.5), (1, 4, 0.25), (1, 6, 0.1666), (4.0, 9, 0.3333)],
)
def test_all_workers_fit_on_what_there_is(total, workers, expected):
    assert engine.share_per_worker(total, workers) == expected
    units = round(10_000 * expected)  # as Ray counts
    assert not total or int(total) * (10_000 // units) >= workers


@pytest.mark.slow
@needs_ray
@quiet
def test_more_workers_than_cpus_do_their_jobs():
    with engine.Pool(3 * pool_local.cores()) as pool:
        jobs = [
            Job(str(seed), "", TrainConfig(seed=seed), fake.look) for seed in range(3 * pool_local.cores())
        ]
        assert [event.state for event in pool.run(jobs)].count("done") == len(jobs)


@pytest.mark.slow
@needs_ray
@quiet
def test_a_study_with_a_killed_worker_has_the_verdict_of_an_undisturbed_one(tmp_path, capsys):
    place, calm = tmp_path / "disturbed" / "study", tmp_path / "calm"
    with engine.Pool(2) as pool:
        fake.study(place, fake.plan_of(), pool, fake.kills_its_worker_once)
    assert capsys.readouterr().out.count("its worker died") >= 2
    fake.study(calm, fake.plan_of())
    assert (place / "verdict.json").read_bytes() == (calm / "verdict.json").read_bytes()


@pytest.mark.slow
@needs_ray
@quiet
def test_a_job_that_always_dies_fails_and_others_are_done(tmp_path):
    jobs = [
        Job("bad", "a", TrainConfig(), fake.always_kills_its_worker),
        Job("good", "a", TrainConfig(workdir=str(tmp_path / "runs" / "x"), epochs=1), fake.work),
    ]
    with engine.Pool(1) as pool:
        events = list(pool.run(jobs))
    assert {event.job.id: event.state for event in events} == {"bad": "failed", "good": "done"}


def trains_after_killing_its_worker(config, tell):
    """Half of the run is done when the worker is killed."""
    marker = pathlib.Path(f"{config.directory}.killed")
    if marker.exists():
        return worker.train_one(config, tell)
    marker.touch()
    return worker.train_one(config, lambda detail: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.slow
@needs_ray
@quiet
def test_the_same_runs_bit_for_bit_as_the_local_engine(short_config, tmp_path):
    def runs(pool, name, work):
        places = [str(tmp_path / name / str(seed)) for seed in range(2)]
        configs = [short_config(seed=seed, workdir=place) for seed, place in enumerate(places)]
        (tmp_path / name).mkdir()
        list(pool.run([Job(str(c.seed), "", c, work) for c in configs]))
        return [outcome_of(place) for place in places]

    with pool_local.Pool(2) as pool:
        here = runs(pool, "local", worker.train_one)
    with engine.Pool(2) as pool:
        assert runs(pool, "ray", trains_after_killing_its_worker) == here
