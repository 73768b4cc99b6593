"""A study of class imbalance whose runs are drawn, with gains that are set for each stratum and head."""

import dataclasses

import numpy as np

from bnhead.data.subsets import class_sizes
from bnhead.runs.directory import RunDirectory
from bnhead.runs.predictions import NAME, of_outputs, write_predictions
from bnhead.seeds import stream
from bnhead.studies import runner
from bnhead.studies.directory import write_plan
from bnhead.studies.outcomes import read_outcomes
from bnhead.studies.plan import make, with_data
from bnhead.studies.study import named_study
from bnhead.training.config import TrainConfig
from tests.studies import fake

CLASSES, EACH = 10, 36


def plan_of(seeds=3, **settings):
    base = TrainConfig(**{"epochs": 2, "imbalance": "longtail:20", "batch_size": 32, **settings})
    plan = make("imbalance", named_study("imbalance"), base, looks=(seeds,))
    return with_data(plan, fake.FACTS)


def logits_of(config, gain, sharpness=4.0):
    """`(360, 10)` logits of classes in turn; of each class a share of .5 + gain is right."""
    random = np.random.default_rng(stream(config.seed, f"{config.head} {config.imbalance}"))
    labels = np.repeat(np.arange(CLASSES), EACH)
    place = np.concatenate([random.permutation(EACH) for _ in range(CLASSES)])
    right = place < round(EACH * min(1.0, 0.5 + gain))
    answers = np.where(right, labels, (labels + 1 + place % (CLASSES - 1)) % CLASSES)
    return sharpness * np.eye(CLASSES)[answers] + random.normal(0, 0.01, (len(labels), CLASSES)), labels


def write_run(config, gain, *, bare=None, prior_shift=False, **logits):
    """Writes a run.

    Args:
        config: its settings.
        gain: balanced accuracy above one half.
        bare: the same without the norm; None for a head without one.
        prior_shift: whether the logits have the log prior of the training classes added.
    """
    counts = class_sizes(config.imbalance, [144] * CLASSES)
    prior = np.array(counts) / sum(counts)
    outputs, labels = logits_of(config, gain, **logits)
    silent = np.full((len(labels), 1), 0.5)

    def of(outputs):
        shifted = outputs + np.log(prior) * prior_shift
        return of_outputs(shifted, labels, silent, ("head_fc",), config.task)

    predictions = of(outputs)
    figures = {"test_accuracy": float(predictions.accuracy().mean()), "test_loss": 0.5}
    figures |= {"dead/head_fc/dataset": 0.1, "dead/head_fc/per_input": 0.5, "dead/head_fc/class_dead": 0.3}
    without = {}
    if bare is not None:
        predictions = dataclasses.replace(predictions, without_norms=of(logits_of(config, bare)[0]))
        without = {"without_norms": {**figures, "test_accuracy": 0.5 + bare}}
    rows = [{"epoch": epoch, **figures} for epoch in range(1, config.epochs + 1)]
    directory = RunDirectory(config.directory)
    directory.begin(config.settings())
    directory.write("environment.json", fake.ENVIRONMENT)
    directory.write_history(rows)
    directory.replace(NAME, lambda path: write_predictions(path, predictions))
    directory.replace("model.keras", lambda path: path.write_text("a model"))
    data = {"name": fake.FACTS["name"], "train": sum(counts), "test": 360, "prior": prior.tolist()}
    data["checks"] = {"class_counts": {"train": counts, "test": [EACH] * CLASSES}}
    if config.imbalance == "longtail:20":
        data["train"] = fake.FACTS["train"]
    result = {"status": "finished", "epochs": config.epochs, **figures, "dead/head_fc/inputs": 360}
    result |= {"data": data, "head": config.head, "mechanisms/initial_modal_share": 0.4, **without}
    directory.finish(result)


def write_study(directory, draw, seeds=3):
    """Writes a study of drawn runs with its verdict: `draw(config)` are the arguments of `write_run`."""
    plan = plan_of(seeds)
    directory.mkdir(parents=True, exist_ok=True)
    for run in plan.runs:
        config = plan.config(run, directory)
        write_run(config, **draw(config))
    write_plan(directory, plan)
    return runner.conclude(plan, directory, read_outcomes(plan, directory))
