import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from bnhead.errors import DataError, RunDirectoryError, StudyError
from bnhead.runs.directory import RunDirectory
from bnhead.studies import pool_local, runner
from bnhead.studies.directory import read_failures, read_plan
from bnhead.studies.plan import with_data
from tests.studies import fake
from tests.studies.fake import FACTS, Inline, plan_of, study

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The bytes of the verdict of a study that nothing happened to."""
    place = tmp_path_factory.mktemp("undisturbed") / "study"
    study(place, plan_of())
    return (place / "verdict.json").read_bytes()


def verdict_bytes(place):
    return (place / "verdict.json").read_bytes()


def test_a_study_leaves_plan_runs_and_verdict(tmp_path, capsys):
    verdict = study(tmp_path, plan_of())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"plan.json", "runs", "verdict.json"}
    plan = read_plan(tmp_path)
    assert plan == with_data(plan_of(), FACTS) and verdict["plan_sha256"] == plan.sha256
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {run.id for run in plan.runs}
    assert json.loads(verdict_bytes(tmp_path)) == verdict
    assert verdict["word"] == "HELPS" and verdict["flow"]["finished"] == 8
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 8  fc, seed 0: ") and lines[1].startswith("2 of 8  bn_fc, seed 0: ")


def test_the_plan_is_there_before_the_first_run(tmp_path):
    def looks(config, tell):
        assert (tmp_path / "plan.json").is_file()
        return fake.work(config, tell)

    study(tmp_path, plan_of(), work=looks)


def test_what_is_done_is_not_done_again(tmp_path, undisturbed):
    done = []

    def counts(config, tell):
        done.append((config.head, config.seed))
        return fake.work(config, tell)

    study(tmp_path, plan_of(), work=fake.fails_for_seed_1)
    study(tmp_path, plan_of(), work=counts)
    assert sorted(done) == [("bn_fc", 1), ("fc", 1)]
    assert verdict_bytes(tmp_path) == undisturbed and not (tmp_path / "failures.json").exists()


def test_a_failed_run_is_recorded_and_does_not_stop_the_study(tmp_path, capsys):
    verdict = study(tmp_path, plan_of(), work=fake.fails_for_seed_1)
    assert verdict["word"] == "INVALID" and verdict["flow"]["failed"] == 2
    assert verdict["flow"]["finished"] == 6
    recorded = read_failures(tmp_path).values()
    assert {(one["cell"], one["seed"], one["error"]) for one in recorded} == {
        ("fc", 1, "ValueError"),
        ("bn_fc", 1, "ValueError"),
    }
    assert all("no luck in " in one["message"] and "Traceback" in one["traceback"] for one in recorded)
    assert "fc, seed 1: failed: ValueError: no luck in" in capsys.readouterr().out


def test_three_identical_failures_in_a_row_end_it_and_the_next_time_goes_on(tmp_path, undisturbed):
    with pytest.raises(StudyError, match=r"3 runs in a row failed alike, .* No space left on device"):
        study(tmp_path, plan_of(), work=fake.finds_the_disk_full)
    assert len(read_failures(tmp_path)) == 3
    study(tmp_path, plan_of())
    assert verdict_bytes(tmp_path) == undisturbed


def test_different_failures_do_not_end_it(tmp_path):
    count = iter(range(100))

    def differs(config, tell):
        raise ValueError(f"number {next(count)}")

    assert study(tmp_path, plan_of(), work=differs)["flow"]["failed"] == 8


def test_a_full_disk_under_the_studys_own_files(tmp_path, undisturbed, monkeypatch):
    real = RunDirectory.replace

    def full(self, name, write):
        if name == "verdict.json":
            raise RunDirectoryError(f"{self.path / name} cannot be written: No space left on device")
        real(self, name, write)

    monkeypatch.setattr(RunDirectory, "replace", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        study(tmp_path, plan_of())
    assert not (tmp_path / "verdict.json").exists()
    monkeypatch.undo()
    study(tmp_path, plan_of())
    assert verdict_bytes(tmp_path) == undisturbed


def test_a_damaged_run_is_set_aside_and_done_again(tmp_path, undisturbed, capsys):
    study(tmp_path, plan_of())
    run = read_plan(tmp_path).runs[3].id
    (tmp_path / "runs" / run / "result.json").write_text('{"status": "fini')
    study(tmp_path, plan_of())
    assert verdict_bytes(tmp_path) == undisturbed
    assert (tmp_path / "damaged" / f"{run}-1" / "result.json").is_file()
    assert "to be repeated" in capsys.readouterr().out


def test_a_run_that_lost_its_environment_is_done_again(tmp_path, undisturbed):
    study(tmp_path, plan_of())
    (tmp_path / "runs" / read_plan(tmp_path).runs[3].id / "environment.json").unlink()
    study(tmp_path, plan_of())
    assert verdict_bytes(tmp_path) == undisturbed


def test_a_killed_worker_is_replaced(tmp_path, capsys):
    place, calm = tmp_path / "disturbed" / "study", tmp_path / "calm"
    with pool_local.Pool(2) as pool:
        study(place, plan_of(), pool, fake.kills_its_worker_once)
    assert capsys.readouterr().out.count("its worker died (signal 9); started again") == 2
    study(calm, plan_of())
    assert verdict_bytes(place) == verdict_bytes(calm)


def test_a_study_killed_with_kill_9_goes_on(tmp_path):
    place = tmp_path / "killed" / "study"
    other = subprocess.Popen([sys.executable, "-m", "tests.studies.fake", place], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list(place.glob("runs/*/result.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other.send_signal(signal.SIGKILL)
    other.wait()
    done = len(list(place.glob("runs/*/result.json")))
    assert done < 20
    workers = [int(path.name.removeprefix("pid-")) for path in place.parent.glob("pid-*")]
    while any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in workers):  # they end with it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    study(place, plan_of(seeds=10))
    study(tmp_path / "calm", plan_of(seeds=10))
    assert verdict_bytes(place) == verdict_bytes(tmp_path / "calm")


@pytest.mark.slow
def test_a_study_that_really_trains_goes_on_after_kill_9_and_damage(tmp_path):
    place, calm = tmp_path / "disturbed", tmp_path / "calm"
    fake.real_study(calm)
    with subprocess.Popen([sys.executable, "-m", "tests.studies.fake", place, "real"], cwd=ROOT) as other:
        deadline = time.monotonic() + 300
        while not list(place.glob("runs/*/result.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other.kill()
    run = next(place.glob("runs/*/result.json")).parent
    (run / "result.json").write_bytes((run / "result.json").read_bytes()[:100])
    time.sleep(2)  # its workers end
    fake.real_study(place)
    assert verdict_bytes(place) == verdict_bytes(calm)
    for run in fake.real_plan().runs:
        one, other = ((root / "runs" / run.id / "result.json").read_bytes() for root in (place, calm))
        assert one == other


def test_another_plan_in_the_place(tmp_path):
    study(tmp_path, plan_of())
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(RunDirectoryError, match=r"momentum 0\.9 there, 0\.5 now"):
        study(tmp_path, plan_of(momentum=0.5))
    assert (tmp_path / "plan.json").read_bytes() == before


def test_more_seeds_are_an_amendment_and_exploratory(tmp_path):
    study(tmp_path, plan_of())
    plan = runner.prepare(plan_of(seeds=5), tmp_path, Inline(), amend=True)
    assert (
        read_plan(tmp_path) == plan
        and [o.status for o in runner.sound_outcomes(plan, tmp_path)].count("missing") == 2
    )
    outcomes = runner.fill(plan, tmp_path, Inline(), work=fake.work)
    verdict = runner.conclude(plan, tmp_path, outcomes)
    assert verdict["flow"]["finished"] == 10
    assert verdict["exploratory"] == [
        "looks was changed after the plan was written: 4 there, 5 now",
        "seeds was changed after the plan was written: 0 to 3 there, 0 to 4 now",
    ]


def test_runs_of_two_codes_are_never_mixed(tmp_path):
    def other(**settings):
        return dataclasses.replace(plan_of(**settings), code={"bnhead": "1", "source_sha256": "0"})

    study(tmp_path, plan_of())
    with pytest.raises(RunDirectoryError, match=r"dir holds another plan: code bnhead .* there, 1 now"):
        runner.prepare(other(), tmp_path, Inline())
    with pytest.raises(RunDirectoryError, match="has changed since 8 of 10 runs were started"):
        runner.prepare(other(seeds=5), tmp_path, Inline(), amend=True)
    assert read_plan(tmp_path).code == plan_of().code
    plan = runner.prepare(other(), tmp_path, Inline(), amend=True)  # all are done: only the verdict is new
    assert len(plan.amendments) == 2


def swings(config, report):
    """A run of a study that stays undecided."""
    swing = 0.05 * (-1) ** config.seed * (config.head == "bn_fc")
    return {**fake.write_run(config, 0.9 + swing), "seconds": 1.0}


def counted(work, done):
    def counts(config, report):
        done.append(config.seed)
        return work(config, report)

    return counts


def test_a_study_stops_at_the_first_look_that_decides(tmp_path, capsys):
    done = []
    verdict = study(tmp_path, plan_of(seeds=(3, 5)), work=counted(fake.work, done))
    assert verdict["word"] == "HELPS" and verdict["look"] == {"number": 1, "seeds": 3}
    assert sorted(done) == [0, 0, 1, 1, 2, 2] and "undecided" not in capsys.readouterr().out
    assert verdict["flow"]["planned"] == verdict["flow"]["finished"] == 6


def test_an_undecided_study_goes_on_to_its_last_look(tmp_path, capsys):
    done = []
    verdict = study(tmp_path, plan_of(seeds=(3, 4, 6)), work=counted(swings, done))
    assert verdict["word"] == "UNDECIDED" and verdict["look"] == {"number": 3, "seeds": 6}
    assert done == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("undecided")]
    assert told == ["undecided after 3 seeds; on to 4", "undecided after 4 seeds; on to 6"]


def test_a_study_stopped_within_a_later_look_goes_on_there(tmp_path):
    plan, done = plan_of(seeds=(3, 4, 6)), []

    def stops(config, report):
        if config.seed == 5:
            raise KeyboardInterrupt
        return swings(config, report)

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "stopped", plan, work=stops)
    assert json.loads(verdict_bytes(tmp_path / "stopped"))["look"]["number"] == 2
    study(tmp_path / "stopped", plan, work=counted(swings, done))
    assert done == [5, 5]
    study(tmp_path / "calm", plan, work=swings)
    assert verdict_bytes(tmp_path / "stopped") == verdict_bytes(tmp_path / "calm")


def test_a_failure_in_a_later_look_is_seen_and_ends_it(tmp_path):
    def fails(config, report):
        if config.seed == 4:
            raise ValueError(f"no luck with {config.head}")
        return swings(config, report)

    verdict = study(tmp_path, plan_of(seeds=(3, 5, 7)), work=fails)
    assert verdict["look"]["number"] == 1 and verdict["next"] == {"kind": "look", "seeds": 5}
    assert verdict["flow"]["failed"] == 2 and verdict["flow"]["planned"] == 10
    assert {one["seed"] for one in verdict["exclusions"]} == {4}
    done = []
    verdict = study(tmp_path, plan_of(seeds=(3, 5, 7)), work=counted(swings, done))
    assert done == [4, 4, 5, 5, 6, 6] and verdict["look"]["number"] == 3


def test_data_that_is_not_there_leaves_no_plan(tmp_path):
    def look(config, tell):
        raise DataError("data set 'x' is not prepared")

    with pytest.raises(DataError, match="data set 'x' is not prepared"):
        runner.prepare(plan_of(), tmp_path, Inline(), look=look)
    assert not (tmp_path / "plan.json").exists()


def test_an_unknown_error_of_the_data_is_a_studys(tmp_path):
    with pytest.raises(StudyError, match="ZeroDivisionError: division by zero"):
        runner.prepare(plan_of(), tmp_path, Inline(), look=lambda config, tell: 1 / 0)
