"""Data and traced graphs that several runs of one process share.

Opening data and tracing a training step take longer than training a short run. Neither depends on the seed:
models of two seeds differ only in the values of their variables, initial weights and random states.
"""

from typing import Any

import keras

from bnhead.data import DataSet, load
from bnhead.training.build import build_model
from bnhead.training.config import TrainConfig


def data_options(config: TrainConfig) -> dict[str, Any]:
    """The arguments of `data.load` for a config's data set, its validation split and its shifts."""
    return {
        "name": config.dataset,
        "data_dir": config.data_dir or None,
        "task": config.task,
        "image_size": config.image_size,
        "crop": config.augment == "imagenet",
        "validation": config.validation,
        "imbalance": config.imbalance,
        "label_noise": config.label_noise,
        "test_corruption": config.test_corruption,
    }


class Reuse:
    """Keeps the last data set and the last model for a next run with the same settings.

    One run at a time: the next run trains the same model object, with other values.
    """

    def __init__(self):
        self._data: tuple[dict, DataSet] | None = None
        self._model: tuple[dict, DataSet, keras.Model] | None = None

    def data(self, config: TrainConfig) -> DataSet:
        """The data set of a config: that of the last run, or a newly opened one."""
        options = data_options(config)
        if self._data is None or self._data[0] != options:
            self._data = self._model = None  # frees the memory first
            self._data = options, load(**options)
        return self._data[1]

    def model(self, config: TrainConfig, data: DataSet) -> keras.Model:
        """The compiled model of a config, with its initial values.

        A model is built in any case, for the values. If only the seed differs from the last run, the last
        model gets them and keeps its traced graph.
        """
        settings = {**config.settings(), "seed": None}
        model = build_model(config, data)
        if self._model is None or self._model[:2] != (settings, data):
            self._model = settings, data, model
        else:
            assign_values(self._model[2], model)
        return self._model[2]


def assign_values(model: keras.Model, fresh: keras.Model) -> None:
    """Assigns the values of a newly built model to a trained one of the same structure.

    These are weights, moving averages, random states and the optimizer's variables; metrics are reset. After
    a divergence the model executes single steps (`failures.locate`); it gets the fresh model's number again.
    """
    if model.steps_per_execution != fresh.steps_per_execution:
        model.steps_per_execution, model.train_function = fresh.steps_per_execution, None
    fresh.optimizer.build(fresh.trainable_variables)
    model.optimizer.build(model.trainable_variables)
    for target, source in ((model, fresh), (model.optimizer, fresh.optimizer)):
        for variable, value in zip(target.variables, source.variables, strict=True):
            variable.assign(value)
    model.reset_metrics()
