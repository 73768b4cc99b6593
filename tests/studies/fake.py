"""Studies that cost nothing: runs whose figures follow from their settings or are drawn at random."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import numpy as np

from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import RunDirectory
from bnhead.runs.predictions import NAME, of_outputs, write_predictions
from bnhead.seeds import stream
from bnhead.studies import pool_local, pool_serial, runner, worker
from bnhead.studies.directory import locked_study, write_plan
from bnhead.studies.outcomes import read_outcomes
from bnhead.studies.plan import make, with_data
from bnhead.studies.study import Study, named_study
from bnhead.training.config import TrainConfig

FACTS = {"name": "digits/1.0.0", "train": 1437, "test": 360, "classes": 10}
ENVIRONMENT = {"bnhead": "0", "keras": "3", "devices": ["CPU"], "seconds": 2.0}
FULL_ENVIRONMENT = {
    "started": "2026-01-01T00:00:00+00:00", "python": "3.11.9", "bnhead": "0.1.0", "tensorflow": "2.21.0",
    "keras": "3.15.1", "backend": "tensorflow", "devices": ["CPU"], "platform": "Linux-6.1-x86_64",
    "seconds": 12.3, "sessions": [{"started": "2026-01-01T00:00:00+00:00", "step": 0}],
}  # fmt: skip
SHAPES = (
    "two",
    "placement",
    "controls",
    "causes",
    "learning_rate",
    "width",
    "damaged",
    "strange",
    "regression",
)


def plan_of(name="bn_before_fc", *, seeds=4, delta=0.01, alpha=0.05, **settings):
    base = TrainConfig(**{"epochs": 2, **settings})
    looks = (seeds,) if isinstance(seeds, int) else seeds
    return make(name, named_study(name), base, looks=looks, delta=delta, alpha=alpha)


def score_of(config):
    noise = stream(config.seed, config.head) / 2**31 - 0.5
    return round(360 * (0.95 + 0.02 * noise + 0.03 * ("bn" in config.head))) / 360


def write_run(config, score=None, *, status="finished", environment=ENVIRONMENT, rows=None, **figures):
    """Writes a run's files and returns its result, which is that of the last row of the history."""
    score = score_of(config) if score is None else score
    share = 0.4 + 0.02 * (config.seed % 5)
    rows = rows or [
        {
            "epoch": epoch,
            "test_accuracy": score if epoch == config.epochs else 0.5,
            "test_loss": 0.5,
            "dead/head_fc/per_input": share,
        }
        for epoch in range(1, config.epochs + 1)
    ]
    result = {
        "status": status,
        "epochs": len(rows),
        **{key: value for key, value in rows[-1].items() if key.startswith(("test_", "dead/"))},
        "dead/head_fc/inputs": 360,
        "data": {key: FACTS[key] for key in ("name", "train", "test")},
        "head": config.head,
        **figures,
    }
    directory = RunDirectory(config.directory)
    directory.begin(config.settings())
    directory.write("environment.json", environment)
    directory.write_history(rows)
    predictions = predictions_of(result, config)
    if config.population_stats and config.parsed_head.text.startswith("bn"):
        better = {**result, "test_accuracy": min(1.0, score + 2 / 360)}
        result["population"] = {key: better[key] for key in better if key.startswith(("test_", "dead/"))}
        predictions = dataclasses.replace(predictions, population=predictions_of(better, config))
    directory.replace(NAME, lambda path: write_predictions(path, predictions))
    directory.replace("model.keras", lambda path: path.write_text("a model"))
    directory.finish(result)
    return result


def predictions_of(result, config):
    """Predictions of 360 test images whose means are the figures of a result, as nearly as 360 images can."""
    order = np.random.default_rng(stream(config.seed, config.head)).permutation(FACTS["test"])
    silent = np.full((FACTS["test"], 1), result.get("dead/head_fc/per_input", 0.5))
    score = result.get("test_accuracy", result.get("test_r2"))
    correct = order < round(FACTS["test"] * (score if score == score else 0))
    outputs = np.where(correct[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
    return of_outputs(outputs, np.zeros(FACTS["test"], int), silent, ("head_fc",), config.task)


def write_study(directory, shape="two", seeds=10):
    """Writes a study of one of `SHAPES` with its verdict, of drawn runs, and returns its directory."""
    name = shape if shape in ("placement", "controls", "causes", "learning_rate", "width") else "bn_before_fc"
    study, settings = named_study(name), {}
    if shape == "strange":
        study = Study("Hilft's? <script>alert(1)</script> | `x` *y*", ("fc", "fastai"))
    if shape == "regression":
        settings = {"task": "regression", "dataset": "digits_rotation", "learning_rate": 0.1}
    base = TrainConfig(**{"epochs": 15, **settings})
    plan = make(name, study, base, looks=(seeds,), delta=0.01, alpha=0.05)
    plan = with_data(plan, {**FACTS, "classes": None if shape == "regression" else 10})
    if shape == "strange":
        plan = _renamed(plan, ("<script>alert('fc')</script>", "höher & <i>weiter</i> | `code` *x*"))
    random = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    for run in plan.runs:
        _draw_run(plan.config(run, directory), shape, random)
    write_plan(directory, plan)
    paths = [directory / "runs" / run.id for run in plan.runs]
    if shape == "damaged":  # one run is lost, one half-written
        shutil.rmtree(paths[3])
        (paths[6] / "result.json").write_text('{"status": "fin')
    verdict = runner.conclude(plan, directory, read_outcomes(plan, directory))
    if shape == "damaged":  # after the verdict one loses its history; one ran on another machine
        (paths[14] / "history.csv").write_text("epoch,loss\n1")
        dump(paths[0] / "environment.json", {**FULL_ENVIRONMENT, "tensorflow": "2.20.0", "devices": ["GPU"]})
    if shape == "strange":
        sentence = "On größe, <script>alert(2)</script>: cells are missing: INVALID."
        dump(directory / "verdict.json", {**verdict, "word": "INVALID", "sentence": sentence})
    return directory


def _renamed(plan, names):
    """The same plan with other names of its two cells and of the study."""
    names = dict(zip([cell.name for cell in plan.cells], names, strict=True))
    (pair,) = plan.comparisons
    control, treatment = names.values()
    comparison = dataclasses.replace(
        pair, name=f"{treatment} against {control}", control=control, treatment=treatment
    )
    return dataclasses.replace(
        plan,
        study="größe <b>&</b>",
        cells=tuple(dataclasses.replace(cell, name=names[cell.name]) for cell in plan.cells),
        runs=tuple(dataclasses.replace(run, cell=names[run.cell]) for run in plan.runs),
        comparisons=(comparison,),
        amendments=("seeds 10 to 14 were added later", "delta was 0.005"),
    )


def _draw_run(config, shape, random):
    rate, width, is_fc = config.learning_rate, config.fc_units, config.head == "fc"
    lift = 0 if is_fc else 0.004 * sum(map(ord, config.head)) % 0.011 - 0.003
    end = min(1, 0.982 + lift - 0.004 * abs(np.log10(rate / 0.1)) + random.normal(0, 0.003))
    end = round(360 * end) / 360
    silent = 0.45 + 0.03 * np.log2(width / 256) + 0.08 * (not is_fc) + random.normal(0, 0.01)
    dead = max(0, 0.02 + 0.02 * np.log2(width / 256) - 0.008 * (not is_fc) + random.normal(0, 0.002))
    diverging = {"learning_rate": (2, 5, 7) if rate > 0.2 else (), "damaged": (2,)}.get(shape, ())
    diverged = config.head == "bn_fc" and config.seed in diverging
    metric = "r2" if shape == "regression" else "accuracy"
    rows = []
    for epoch in range(1, (5 if diverged else config.epochs) + 1):
        test = end - (end - 0.12) * np.exp(-0.9 * (epoch - 1)) + random.normal(0, 0.012 / epoch)
        row = {metric: test - 0.01, "loss": 2.3 * np.exp(-0.3 * epoch),
               f"test_{metric}": end if epoch == config.epochs else min(test, 1.0),
               "test_loss": 2.2 * np.exp(-0.28 * epoch) + 0.05,
               "dead/head_fc/per_input": silent * (0.7 + 0.3 * (1 - np.exp(-0.5 * epoch))),
               "dead/head_fc/dataset": dead * (1 - np.exp(-epoch / 5)),
               "learning_rate": rate, "images_per_second": random.uniform(500, 700)}  # fmt: skip
        if diverged and epoch == 5:
            row |= dict.fromkeys(("loss", "test_loss", "test_accuracy"), float("nan"))
        rows.append({"epoch": epoch} | {key: float(value) for key, value in row.items()})
    figures = {"dead/head_fc/bound": 3 / 360, "parameters": 290000}
    head = f"2x2x64 -> gap -> 64 -> fc({width}, relu) -> out(10)"
    status = "diverged" if diverged else "finished"
    write_run(config, status=status, environment=FULL_ENVIRONMENT, rows=rows, **{**figures, "head": head})


def dump(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def change_json(path, keys, value):
    """Sets one value in a JSON file."""
    content = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    dump(path, content)


def look(config, report):
    return FACTS


def work(config, report):
    report({"share": 1 / config.epochs})
    return {**write_run(config), "seconds": 1.0}


def slow_work(config, report):
    (pathlib.Path(config.directory).parents[1].parent / f"pid-{os.getpid()}").touch()
    time.sleep(0.3)
    return work(config, report)


def kills_its_worker_once(config, report):
    """Of seed 1."""
    marker = pathlib.Path(config.directory).parents[1].parent / f"killed-{config.head}"
    if config.seed == 1 and not marker.exists():
        RunDirectory(config.directory).begin(config.settings())  # half done
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(config, report)


def always_kills_its_worker(config, report):
    os.kill(os.getpid(), signal.SIGKILL)


def fails_for_seed_1(config, report):
    if config.seed == 1:
        raise ValueError(f"no luck\nin {config.directory}")
    return work(config, report)


def finds_the_disk_full(config, report):
    RunDirectory(config.directory).begin(config.settings())
    raise RunDirectoryError(f"{config.directory}/history.csv cannot be written: No space left on device")


class Inline(pool_serial.Pool):
    """Does the jobs in this process.

    Args:
        substitutes: the work of a job -> what is done instead.
    """

    def __init__(self, substitutes=()):
        self._substitutes = dict(substitutes)

    def run(self, jobs):
        substituted = [self._substitutes.get(job.work, job.work) for job in jobs]
        pairs = zip(jobs, substituted, strict=True)
        return super().run([dataclasses.replace(job, work=work) for job, work in pairs])


def study(directory, plan, engine=None, work=work):
    """A study from plan to verdict, as the command does it, without its report."""
    engine = engine or Inline()
    with locked_study(directory):
        plan = runner.prepare(plan, directory, engine, look=look)
        return runner.finish_study(plan, directory, engine, work=work)[0]


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
