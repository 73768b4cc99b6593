"""The backbone of a run, and the features of a frozen one, which take the place of the images.

A frozen backbone gives an image the same features in every epoch, so with `--freeze_backbone` it runs once
over the data set and the head trains on the stored features (`bnhead.frozen`). The result is that of
training the head on the frozen net end to end: batch norms and dropout of the backbone are in inference
mode.
"""

import dataclasses
import time
from dataclasses import dataclass

import keras
import numpy as np

from bnhead import models, texts
from bnhead.data import DataSet
from bnhead.data.split import Recipe
from bnhead.frozen.extraction import (
    Features,
    StoredSplit,
    default_directory,
    features,
    joined,
    pooled,
)
from bnhead.heads.surgery import is_of_a_head
from bnhead.models import pixels
from bnhead.training.config import TrainConfig
from bnhead.training.pretrained import apply_control, weights_of

_SHOWN_EVERY = 10.0  # seconds between two lines about an extraction


@dataclass(frozen=True)
class FeatureData(DataSet):
    """A data set whose examples are the features of images.

    Attributes:
        images: the images' data set.
        extractor: the frozen net from images to features.
    """

    images: DataSet | None = None
    extractor: keras.Model | None = None


def images_of(data: DataSet) -> DataSet:
    """The data set of images that a run's data set is, or is made of."""
    return data.images if isinstance(data, FeatureData) else data


def whole_model(model: keras.Model, data: DataSet) -> keras.Model:
    """The net from images to outputs: the trained model, after its frozen backbone if it reads features."""
    return joined(data.extractor, model) if isinstance(data, FeatureData) else model


def parameters(model: keras.Model, data: DataSet) -> int:
    """The number of parameters of `whole_model`."""
    return model.count_params() + (data.extractor.count_params() if isinstance(data, FeatureData) else 0)


def freeze_norms(model: keras.Model) -> None:
    """Puts the batch norms of a net's backbone in inference mode, for good."""
    for layer in model._flatten_layers():
        if hasattr(layer, "moving_variance") and not is_of_a_head(layer.name):
            layer.trainable = False


def choose_pixels(config: TrainConfig, channels: int) -> tuple[keras.layers.Layer | None, str]:
    """The layer that scales the pixels of a run, and a line about it."""
    return pixels.decide_scaling(config.backbone, channels, config.pixels, config.weights)


def feature_data(config: TrainConfig, images: DataSet) -> FeatureData:
    """The features of a run's images, read from the store or computed, in float32.

    Raises:
        UsageError: the backbone does not take the images.
        ResourcesError, RunDirectoryError: as `frozen.store.load_or_compute`.
    """
    extractor = extractor_of(config, images)
    recipe = Recipe(config.augment, config.cutout) if config.feature_passes > 1 else None
    computed = features(
        extractor,
        images,
        passes=config.feature_passes,
        recipe=recipe,
        directory=default_directory(config.data_dir or None),
        report=_Lines(f"{config.backbone} computes features, once, of"),
    )
    return _with_features(computed, images, extractor)


def unknown_features(config: TrainConfig, images: DataSet) -> FeatureData:
    """Features in the shape of a run's, all 0, for timing its steps; nothing is computed or stored."""
    extractor = extractor_of(config, images)
    shape = extractor.output.shape[1:]
    splits = {
        name: StoredSplit.of(split, [np.zeros((split.size, *shape), np.float32)])
        for name, split in images.splits.items()
    }
    data = dataclasses.replace(images, shape=tuple(shape), **splits)
    return FeatureData(**vars(data), images=images, extractor=extractor)


def _with_features(computed: Features, images: DataSet, extractor: keras.Model) -> FeatureData:
    return FeatureData(**vars(computed.dataset(images)), images=images, extractor=extractor)


def extractor_of(config: TrainConfig, images: DataSet) -> keras.Model:
    """The frozen net of a run, from images to what its head reads."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # features are kept, and read by heads of any precision
    try:
        scaling, _ = choose_pixels(config, images.shape[-1])
        options = {"weights": weights_of(config, images), "preprocessing": scaling, "seed": config.seed}
        backbone = models.build(config.backbone, images.shape, **options)
        apply_control(backbone, config.weights_control, images)
        pooling = config.features_pooling
        extractor = pooled(backbone, pooling) if pooling else backbone
    finally:
        keras.config.set_dtype_policy(policy)
    extractor.trainable = False
    return extractor


class _Lines:
    """Prints the progress of an extraction now and then."""

    def __init__(self, subject: str):
        self._subject, self._shown_at = subject, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._shown_at >= _SHOWN_EVERY:
            self._shown_at = time.monotonic()
            texts.notice(f"bnhead: {self._subject} {done:,} of {total:,} images")
