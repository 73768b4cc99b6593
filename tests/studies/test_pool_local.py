import multiprocessing
import os
import time

import pytest

from bnhead.studies import pool_local
from bnhead.studies.pool import MAX_DEATHS, Job, take
from bnhead.studies.pool_local import Pool, cores
from bnhead.training.config import TrainConfig
from tests.studies import fake


def process(config, tell):
    tell({"pid": os.getpid()})
    time.sleep(0.05)
    return {"pid": os.getpid(), "seed": config.seed}


def fails(config, tell):
    raise KeyError("so\nmuch")


def jobs_of(work, count=6, kind=lambda seed: "k"):
    return [Job(str(seed), kind(seed), TrainConfig(seed=seed), work) for seed in range(count)]


def test_workers_are_started_once_and_do_many_jobs_in_other_processes():
    with Pool(2) as pool:
        events = list(pool.run(jobs_of(process)))
        again = list(pool.run(jobs_of(process, 2)))
    done = [event for event in events if event.state == "done"]
    assert sorted(event.detail["seed"] for event in done) == list(range(6))
    pids = {event.detail["pid"] for event in done}
    assert len(pids) == 2 and os.getpid() not in pids
    assert {event.detail["pid"] for event in again if event.state == "done"} <= pids
    assert sum(event.state == "progress" for event in events) == 6
    for pid in pids:  # all are gone with the pool
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("start", "steps", "number"), [(15.0, 0.8, 8), (20.0, 1000.0, 1), (20.0, 15.0, 2), (3.0, 1.0, 4)]
)
def test_processes_on_a_gpu_are_as_many_as_can_start_while_one_computes(start, steps, number):
    assert pool_local.at_once(start, steps, 8) == number


def paced(config, tell):
    """The first run tells the pace; the others are done by processes that start then."""
    tell({"share": 0.1})
    tell({"share": 0.2, "start": 2.0, "steps": 1.0})
    time.sleep(0.5)
    return {"pid": os.getpid()}


def test_the_pace_of_the_first_run_decides_how_many_run_on_a_gpu(monkeypatch):
    monkeypatch.setattr(pool_local, "sees_gpu", lambda: True)
    with Pool(5, paced=True) as pool:
        events = list(pool.run(jobs_of(paced, 9)))
    states = [event.state for event in events]
    assert states[:3] == ["started", "progress", "progress"] and states.count("done") == 9
    assert states[3:5] == ["started", "started"], "3 in all: while one computes, two start"
    assert len({event.detail["pid"] for event in events if event.state == "done"}) == 3
    monkeypatch.setattr(pool_local, "sees_gpu", lambda: False)
    with Pool(2, paced=True) as pool:
        assert [event.state for event in pool.run(jobs_of(paced, 2))][:2] == ["started", "started"]


@pytest.mark.parametrize(
    ("visible", "there", "seen"),
    [(None, True, True), ("0", True, True), ("", True, False), (None, False, False)],
)
def test_a_gpu_is_looked_for_without_taking_it(monkeypatch, visible, there, seen):
    monkeypatch.setattr(pool_local.glob, "glob", lambda pattern: ["/dev/nvidia0"] * there)
    monkeypatch.setattr(pool_local.os.path, "exists", lambda path: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert pool_local.sees_gpu() is seen


def test_a_failure_is_an_event_and_the_worker_goes_on():
    with Pool(1) as pool:
        events = list(pool.run([*jobs_of(fails, 1), Job("last", "k", TrainConfig(), process)]))
    assert [event.state for event in events] == ["started", "failed", "started", "progress", "done"]
    assert events[1].detail["error"] == "KeyError" and events[1].detail["message"] == r"'so\nmuch'"
    assert "Traceback" in events[1].detail["traceback"]


def test_a_job_that_kills_its_workers_fails_in_the_end_and_the_rest_is_done():
    bad = Job("bad", "k", TrainConfig(), fake.always_kills_its_worker)
    with Pool(1) as pool:
        events = list(pool.run([bad, *jobs_of(process, 1)]))
    assert [event.state for event in events if event.job.id == "bad"].count("died") == MAX_DEATHS - 1
    (failed,) = [event for event in events if event.state == "failed"]
    assert failed.detail["message"] == "its worker died 3 times (signal 9)"
    assert events[-1].state == "done"


def test_leaving_early_ends_the_workers():
    with Pool(2) as pool:
        for event in pool.run(jobs_of(process)):
            if event.state == "progress":
                break
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_workers_stay_with_a_kind_and_share_out_the_others():
    jobs = jobs_of(process, 6, lambda seed: "ab"[seed % 2])
    waiting = list(jobs)
    assert take(waiting, None, []).group == "a"
    assert take(waiting, None, ["a"]).group == "b"  # 2 of a wait for one worker more, 3 of b for none
    assert [take(waiting, "a", ["b"]).id for _ in range(2)] == ["2", "4"]
    assert take(waiting, "a", ["b"]).id == "3" and len(waiting) == 1


def test_cores_are_those_this_process_may_use():
    assert 1 <= cores() <= os.cpu_count()
