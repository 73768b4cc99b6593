"""Runs that cost nothing: the files of a run whose figures follow from its settings."""

import os
import pathlib
import signal
import sys
import time

from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import RunDirectory
from bnhead.seeds import stream
from bnhead.studies import pool_local, runner, worker
from bnhead.studies.directory import held
from bnhead.studies.plan import make
from bnhead.studies.pool import Event
from bnhead.studies.study import named
from bnhead.training.config import TrainConfig

FACTS = {"name": "digits/1.0.0", "train": 1437, "test": 360, "classes": 10}
ENVIRONMENT = {"bnhead": "0", "keras": "3", "devices": ["CPU"], "seconds": 2.0}


def plan_of(name="bn_before_fc", *, seeds=4, delta=0.01, alpha=0.05, **settings):
    base = TrainConfig(**{"epochs": 2, **settings})
    return make(name, named(name), base, seeds=range(seeds), delta=delta, alpha=alpha)


def score_of(config):
    noise = stream(config.seed, config.head) / 2**31 - 0.5
    return 0.95 + 0.02 * noise + 0.03 * ("bn" in config.head)


def write_run(config, score=None, *, status="finished", environment=ENVIRONMENT, **figures):
    score = score_of(config) if score is None else score
    directory = RunDirectory(config.directory)
    directory.begin(config.settings())
    directory.write("environment.json", environment)
    share = 0.4 + 0.02 * (config.seed % 5)
    rows = [
        {
            "epoch": epoch + 1,
            "test_accuracy": score if epoch + 1 == config.epochs else 0.5,
            "test_loss": 0.5,
            "dead/head_fc/per_input": share,
        }
        for epoch in range(config.epochs)
    ]
    directory.write_history(rows)
    data = {"name": "digits/1.0.0", "train": 1437, "test": 360}
    result = {
        "status": status,
        "epochs": config.epochs,
        "test_accuracy": score,
        "test_loss": 0.5,
        "dead/head_fc/per_input": share,
        "dead/head_fc/inputs": 360,
        "data": data,
        "head": config.head,
        **figures,
    }
    directory.replace("model.keras", lambda path: path.write_text("a model"))
    directory.finish(result)
    return result


def look(config, tell):
    return FACTS


def work(config, tell):
    tell({"epoch": 1, "epochs": config.epochs})
    return {**write_run(config), "seconds": 1.0}


def slow_work(config, tell):
    (pathlib.Path(config.directory).parents[1].parent / f"pid-{os.getpid()}").touch()
    time.sleep(0.3)
    return work(config, tell)


def kills_its_worker_once(config, tell):
    """Of seed 1."""
    marker = pathlib.Path(config.directory).parents[1].parent / f"killed-{config.head}"
    if config.seed == 1 and not marker.exists():
        RunDirectory(config.directory).begin(config.settings())  # half done
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(config, tell)


def always_kills_its_worker(config, tell):
    os.kill(os.getpid(), signal.SIGKILL)


def fails_for_seed_1(config, tell):
    if config.seed == 1:
        raise ValueError(f"no luck\nin {config.directory}")
    return work(config, tell)


def finds_the_disk_full(config, tell):
    RunDirectory(config.directory).begin(config.settings())
    raise RunDirectoryError(f"{config.directory}/history.csv cannot be written: No space left on device")


class Inline:
    """An engine that does the jobs here and now."""

    def run(self, jobs):
        for job in jobs:
            told = []
            yield Event(job, "started", {})
            what, detail = pool_local.attempt(job, told.append)
            yield from (Event(job, "told", one) for one in told)
            yield Event(job, what, detail)


def study(directory, plan, engine=None, work=work):
    """A whole study, as the command does it, without its report."""
    engine = engine or Inline()
    with held(directory):
        plan = runner.prepare(plan, directory, engine, look=look)
        runner.fill(plan, directory, engine, work=work)
        return runner.conclude(plan, directory)


def real_plan():
    """A study of 4 short runs that really train."""
    return plan_of(seeds=2, backbone="resnet8", fc_units=32, batch_size=256)


def real_study(directory):
    with pool_local.Pool(2) as pool:
        return study(directory, real_plan(), pool, worker.train_one)


if __name__ == "__main__":  # python -m tests.studies.fake DIR [real]: a study to be killed
    if sys.argv[2:] == ["real"]:
        real_study(pathlib.Path(sys.argv[1]))
    else:
        with pool_local.Pool(2) as pool:
            study(pathlib.Path(sys.argv[1]), plan_of(seeds=10), pool, slow_work)
