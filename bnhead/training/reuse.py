"""What several runs of one process share: opened data, and the traced graph where the seed alone differs.

Opening data and tracing a training step take longer than a short run trains. Neither depends on the seed: a
model of another seed differs in the values of its variables, initial weights and random states.
"""

import keras

from bnhead.data import DataSet, load
from bnhead.training.build import build
from bnhead.training.config import TrainConfig

# All settings that `opened` reads.
DATA_SETTINGS = (
    "dataset",
    "data_dir",
    "task",
    "image_size",
    "augment",
    "validation",
    "imbalance",
    "label_noise",
    "test_corruption",
)


def opened(config: TrainConfig) -> DataSet:
    """The config's data set with its splits and shifts."""
    return load(
        config.dataset,
        config.data_dir or None,
        task=config.task,
        image_size=config.image_size,
        crop=config.augment == "imagenet",
        validation=config.validation,
        imbalance=config.imbalance,
        label_noise=config.label_noise,
        test_corruption=config.test_corruption,
    )


class Reuse:
    """Keeps the last data set and the last model, and gives them to the next run if that would make the same.

    One run at a time: the next one's model is the last one's, with other values.
    """

    def __init__(self):
        self._data: tuple[tuple, DataSet] | None = None
        self._model: tuple[dict, DataSet, keras.Model] | None = None

    def data(self, config: TrainConfig) -> DataSet:
        """The config's data set: the last run's, or one that is opened now."""
        key = tuple(getattr(config, name) for name in DATA_SETTINGS)
        if self._data is None or self._data[0] != key:
            self._data = self._model = None  # no two of them in memory
            self._data = key, opened(config)
        return self._data[1]

    def model(self, config: TrainConfig, data: DataSet) -> keras.Model:
        """The config's compiled model, with its initial values.

        It is built in any case, which gives the values; where the settings are those of the last one but for
        the seed, the last one then takes them over, and its graph need not be traced again.
        """
        settings = {**config.settings(), "seed": None}
        model = build(config, data)
        if self._model is None or self._model[:2] != (settings, data):
            self._model = settings, data, model
        else:
            take_over(self._model[2], model)
        return self._model[2]


def take_over(model: keras.Model, fresh: keras.Model) -> None:
    """Gives all variables of a compiled model the values of a model that was just built in the same way.

    Those are weights, moving averages, random states and the optimizer's; metrics are reset. A model that
    diverged was left to train step by step (`failures.locate`); it trains as the fresh one would.
    """
    if model.steps_per_execution != fresh.steps_per_execution:
        model.steps_per_execution, model.train_function = fresh.steps_per_execution, None
    fresh.optimizer.build(fresh.trainable_variables)
    model.optimizer.build(model.trainable_variables)
    for to, of in ((model, fresh), (model.optimizer, fresh.optimizer)):
        for variable, value in zip(to.variables, of.variables, strict=True):
            variable.assign(value)
    model.reset_metrics()
