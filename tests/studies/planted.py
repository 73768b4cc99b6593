"""Nets and data in which one mechanism of a batch norm matters: heads on drawn features, trained in a second.

Each cell of a cause table is trained as a run trains it (`bnhead.training.build.optimizer`, frozen statistics
and a neutral guess before the first step, population statistics after the last), on features alone.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bnhead import heads
from bnhead.layers import neutralise, population_statistics, recompute_batch_stats
from bnhead.layers.plain import vanishes
from bnhead.layers.population import is_frozen
from bnhead.runs.predictions import Predictions
from bnhead.seeds import stream
from bnhead.studies.causes import cause_tables
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import make, with_data
from bnhead.studies.study import cause_study
from bnhead.training.build import optimizer
from bnhead.training.config import TrainConfig

CLASSES = 4


@dataclass(frozen=True)
class Plant:
    """A planted cause.

    Attributes:
        row: the row of the table that must have it; "" for none.
        data: random generator -> features and labels of the training split, and of the test split.
        head: with the batch norm.
        settings: of the training.
        initial: changes a model's initial weights.
    """

    row: str
    data: Callable[[np.random.Generator], tuple]
    head: str = "bn_out"
    settings: dict[str, Any] = field(default_factory=dict)
    initial: Callable[[keras.Model], None] = lambda model: None


def clusters(random, examples, *, mean=0.0, deviation=1.0, distance=3.0, noise=0, noise_deviation=1.0):
    """Features of one cluster per class, and `noise` features without information."""
    labels = random.integers(0, CLASSES, examples)
    x = random.normal(0, 1, (examples, CLASSES)) + distance * np.eye(CLASSES)[labels]
    x = (x - distance / CLASSES) * deviation
    x = np.concatenate([x, random.normal(0, noise_deviation, (examples, noise))], 1) + mean
    return x.astype("float32"), labels


def split(random, train=512, test=1000, **options):
    return clusters(random, train, **options), clusters(random, test, **options)


def shells(random, train=256, test=1000):
    """Four classes by the distance from the middle, which a batch norm over two examples hides: |z| is 1."""
    x = random.normal(0, 1, (train + test, 2)).astype("float32")
    labels = np.searchsorted([0.29, 0.69, 1.39], (x**2).sum(1) / 2)
    return (x[:train], labels[:train]), (x[train:], labels[train:])


def prejudiced(model: keras.Model) -> None:
    """Weights that know the classes already."""
    model.get_layer("head_out").kernel.assign(2 * np.eye(CLASSES))


PLANTS = {
    "nothing": Plant("", split, settings={"epochs": 10, "batch_size": 128}),
    "noise": Plant(
        "noise",
        shells,
        "bn_fc",
        {"epochs": 5, "batch_size": 2, "learning_rate": 0.05, "momentum": 0.0, "head_bn_momentum": 0.99},
    ),
    "moving": Plant(
        "moving",
        functools.partial(split, distance=10.0, deviation=0.225, mean=np.array([3.0, -3.0, 0.0, 0.0])),
        settings={"epochs": 5, "batch_size": 128, "head_bn_momentum": 0.99, "learning_rate": 0.2},
    ),
    "scaling": Plant(
        "scaling",
        functools.partial(split, distance=6.0, deviation=0.02, noise=20),
        settings={"epochs": 10, "batch_size": 64, "learning_rate": 0.02},
    ),
    "centring": Plant(
        "centring",
        # of deviation 1, so that scaling does nothing
        functools.partial(split, distance=6.0, deviation=0.359, mean=10.0, noise=20),
        "bn_fc",
        {"epochs": 20, "batch_size": 64, "learning_rate": 0.02},
    ),
    "neutral": Plant(
        "neutral",
        functools.partial(split, distance=4.0, mean=np.array([6.0, 0.0, 0.0, 0.0])),
        settings={"epochs": 20, "batch_size": 64, "learning_rate": 1e-5},
        initial=prejudiced,
    ),
    "penalty": Plant(
        "feature_decay",
        functools.partial(split, train=128, distance=2.0, noise=60, noise_deviation=0.05),
        settings={"epochs": 200, "batch_size": 128, "learning_rate": 0.3, "weight_decay": 0.02},
    ),
}


@functools.cache
def compiled(name: str, head: str, settings: tuple) -> keras.Model:
    """The model of a cell, whose traced step all seeds share."""
    plant = PLANTS[name]
    config = TrainConfig(head=head, **dict(settings))
    (x, _), _ = plant.data(np.random.default_rng(0))
    model = build(config, x.shape[1])
    sgd = optimizer(config, model, len(x) // config.batch_size)
    model.compile(sgd, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sgd.build(model.trainable_variables)
    return model


def build(config: TrainConfig, features: int) -> keras.Model:
    inputs = keras.Input((features,))
    options = {"fc_units": 16, "head_bn_momentum": config.head_bn_momentum, "seed": config.seed}
    return heads.attach(config.parsed_head, inputs, inputs, CLASSES, name="net", **options)


def train(name: str, config: TrainConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Test labels, logits, and logits with population statistics, None for a head without moving averages."""
    plant = PLANTS[name]
    (x, y), (x_test, y_test) = plant.data(np.random.default_rng(0))
    settings = {key: value for key, value in config.changed().items() if key not in ("head", "seed")}
    model = compiled(name, config.head, tuple(sorted(settings.items())))
    fresh = build(config, x.shape[1])
    plant.initial(fresh)
    for target, source in zip(model.variables, fresh.variables, strict=True):
        target.assign(source)
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.name:
            variable.assign(keras.ops.zeros_like(variable))
    if any(map(is_frozen, model.layers)):
        recompute_batch_stats(model, x, "frozen", batch_size=len(x))
    if config.neutral_init:
        neutralise(model, x, np.log(np.bincount(y, minlength=CLASSES) / len(y)), batch_size=len(x))
    random = np.random.default_rng(stream(config.seed, "order"))
    for _ in range(config.epochs):
        order = random.permutation(len(x))[: len(x) // config.batch_size * config.batch_size]
        for rows in order.reshape(-1, config.batch_size):
            model.train_on_batch(x[rows], y[rows])
    logits, population = np.asarray(model(x_test)), None
    norms = [layer for layer in model.layers if hasattr(layer, "moving_variance")]
    if names := [norm.name for norm in norms if not (is_frozen(norm) or vanishes(norm))]:
        with population_statistics(model, x, names, batch_size=len(x)):
            population = np.asarray(model(x_test))
    return y_test, logits, population


def table_of(name: str, seeds: int) -> list[dict[str, Any]]:
    """The cause tables of a plant."""
    plant = PLANTS[name]
    base = TrainConfig(warmup_epochs=0, **plant.settings)
    plan = with_data(make("causes", cause_study(plant.head), base, looks=(seeds,)), {"classes": CLASSES})
    outcomes = []
    for run in sorted(plan.runs, key=lambda run: run.cell):
        labels, *both = train(name, TrainConfig(**plan.run_settings(run)))
        values = [
            None if logits is None else Predictions(labels, np.zeros((len(labels), 1)), ("fc",), logits)
            for logits in both
        ]
        numbers = [{} if one is None else {"accuracy": one.accuracy()} for one in values]
        outcomes.append(Outcome(run, "finished", 0.0, numbers[0], "head_out", population=numbers[1]))
    return cause_tables(plan, outcomes)
