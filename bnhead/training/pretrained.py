"""Pre-trained weights that are made here, and the controls of pre-trained weights.

Where no weights can be downloaded, `--pretrain_on=fashion_mnist` trains the backbone on another data set
first. That is a run like any other; it lies in `bnhead-pretrained`, in the directory of the data sets, named
after its settings and its images, and every later run with the same ones uses it.

`--weights_control` asks what about pre-trained weights matters:

random     He's initial weights, the same for every seed of a run; norms without gain and offset
shuffled   the weights of each kernel's output in another order: the same values and norms, nothing learned

In both the backbone's batch norms then get the statistics of training images, since the averages that were
learned are those of other features.
"""

import dataclasses
import functools
import hashlib
import json
import time

import keras
import numpy as np

from bnhead import seeds, texts
from bnhead.data import DataSet, load
from bnhead.errors import RunDirectoryError, UsageError
from bnhead.frozen.extraction import default_directory
from bnhead.heads.surgery import is_of_a_head
from bnhead.layers import recompute_batch_stats
from bnhead.runs.lock import is_held
from bnhead.training.config import TrainConfig

FOLDER = "bnhead-pretrained"
MEASURED = 2_048  # training images that give a control's norms their statistics
_POLL = 1.0  # seconds between two looks at a run of another process


def weights_of(config: TrainConfig, images: DataSet) -> str:
    """The source of a run's pre-trained weights, which are trained first if that is asked for; "" for none.

    Args:
        config: the run's settings.
        images: its data set.

    Raises:
        UsageError: the first training diverged, or did not learn.
        DataError: the data set of the first training is missing.
    """
    if not config.pretrain_on:
        return config.weights
    height, width, _ = images.shape
    return _trained(
        TrainConfig(
            dataset=config.pretrain_on,
            data_dir=config.data_dir,
            image_size=height if height == width else 0,
            train_examples=config.pretrain_size,
            backbone=config.backbone,
            pixels=config.pixels,
            head="out",
            epochs=config.pretrain_epochs,
        )
    )


@functools.lru_cache(maxsize=4)
def _trained(config: TrainConfig) -> str:
    """The directory of a finished run in the store; it is done first if there is none."""
    from bnhead.training.run import train  # it imports this module

    data = load(**config.data_options())
    key = json.dumps([config.settings(), data.train.fingerprint()], sort_keys=True)
    store = default_directory(config.data_dir or None).with_name(FOLDER)
    path = store / hashlib.sha256(key.encode()).hexdigest()[:16]
    config = dataclasses.replace(config, workdir=str(path))
    if not (path / "result.json").is_file():
        texts.notice(f"bnhead: {config.backbone} is trained on {config.dataset} first, once, in {path}")
    while True:
        try:
            result = train(config)
            break
        except RunDirectoryError:
            if not is_held(path):
                raise
            time.sleep(_POLL)
    if result["status"] != "finished":
        raise UsageError(f"pretrain_on {config.dataset}: the training in {path} ended as {result['status']}")
    return str(path)


def apply_control(model: keras.Model, control: str, images: DataSet) -> None:
    """Replaces the weights of a net's backbone by those of a control.

    Args:
        model: a model from raw pixels, with or without a head; the head does not change.
        control: "random", "shuffled", or "none", which does nothing.
        images: training images for the norms' statistics.
    """
    if control == "none":
        return
    norms = []
    for layer in model._flatten_layers():
        if is_of_a_head(layer.name) or layer.name == "scale_pixels":
            continue
        for variable in layer._trainable_variables:  # of the layer alone, since inner ones follow
            random = np.random.default_rng(seeds.stream(0, "weights_control", layer.name, variable.name))
            value = keras.ops.convert_to_numpy(variable)
            if control == "shuffled":
                value = shuffled(value, random) if value.ndim > 1 else value
            elif value.ndim > 1:
                value = random.normal(0, np.sqrt(2 / _fan_in(value)), value.shape)
            else:
                value = np.full(value.shape, float(variable.name == "gamma"))
            variable.assign(value.astype("float32"))
        if hasattr(layer, "moving_variance"):
            norms.append(layer.name)
    size = min(128, images.train.size)
    batches = images.train.training_batches(size, 1, 0, "none").take(-(-MEASURED // size))
    recompute_batch_stats(model, batches, norms)


def shuffled(kernel: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A kernel whose weights are in a random order within each output, whose norm stays.

    Args:
        kernel: `(..., inputs, outputs)`; with one output, as of a depthwise convolution, `inputs` are those.
        random: draws the orders.
    """
    rows = kernel.reshape(-1, kernel.shape[-1] if kernel.shape[-1] > 1 else kernel.shape[-2])
    return random.permuted(rows, axis=0).reshape(kernel.shape)


def _fan_in(kernel: np.ndarray) -> int:
    return int(np.prod(kernel.shape[:-1] if kernel.shape[-1] > 1 else kernel.shape[:-2]))
