"""Where examples come from, before any picture is decoded: a TFDS set's files, or a folder's pictures.

A reader has a `name`, a `size`, the labels' TFDS feature `label` and

    records(key)    a tf.data.Dataset of (index, record): in order for None, else in an order by the (2,) key
    parse(record)   the encoded picture, a string, and the label
    decode(encoded) the picture, (height, width, channels) uint8
    cuts(encoded)   whether it is a JPEG of which a window may be decoded alone
    labels          all labels, in order; read once, without a picture being decoded
    content()       what the split holds, without reading it, for its fingerprint
    identity()      what tells this content from any other, without reading it; None where nothing does
    place           the folder beside which decoded copies may lie, or None
    describe(index) how to call one example in a message
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead.data import cache, decoding
from bnhead.data.sets import folder
from bnhead.errors import DataError
from bnhead.texts import first_line

OPEN_FILES = 16
AT_ONCE = 64  # records that are read of an ArrayRecord file in one go
FAULTS = (tf.errors.OpError, OSError, ValueError, NotImplementedError, ImportError)  # of what reads files


@contextlib.contextmanager
def faults_named(what: str) -> Iterator[None]:
    """Makes a DataError about `what` of whatever TensorFlow, TFDS and the file system raise in reading it."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:  # memory is full: no fault of the data
        raise
    except FAULTS as error:
        raise DataError(f"{what} cannot be read: {first_line(error)}") from error


@dataclass(frozen=True)
class Prepared:
    """A split of a prepared TFDS set through TFDS' own reader, in any format that that reads as `tf.data`.

    Attributes:
        builder: the builder.
        split: name of the split.
    """

    builder: tfds.core.DatasetBuilder
    split: str

    @property
    def name(self) -> str:
        return f"{self.builder.info.full_name}, {self.split}"

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.builder.info.splits[self.split].num_examples

    @property
    def channels(self) -> int:
        """Channels of a decoded picture."""
        return self._image.shape[-1]

    @property
    def label(self) -> tfds.features.FeatureConnector:
        return self.builder.info.features[self._keys[1]]

    @property
    def place(self) -> pathlib.Path | None:
        return None

    @property
    def _keys(self) -> tuple[str, str]:
        return self.builder.info.supervised_keys

    @property
    def _image(self) -> tfds.features.Image:
        return self.builder.info.features[self._keys[0]]

    def content(self) -> tuple:
        info = self.builder.info
        return info.full_name, self.split, info.splits[self.split].shard_lengths

    def identity(self) -> list | None:
        return None

    def describe(self, index: int) -> str:
        return f"example {index} of {self.name}"

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        image, label = self._keys
        with faults_named(self.name):
            examples = self.builder.as_dataset(
                split=self.split,
                shuffle_files=False,
                decoders={image: tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(try_autocache=False),
            )
        return examples.map(lambda example: (example[image], example[label])).enumerate()

    @functools.cached_property
    def labels(self) -> np.ndarray:
        identity = self.identity()
        where = identity and cache.folder(self.place, ["labels", identity])
        known = where and cache.read(where)
        if known:
            return known["labels"]
        parsed = self.records(tf.constant([0, 0])).map(
            lambda index, record: (index, self.parse(record)[1]), num_parallel_calls=tf.data.AUTOTUNE
        )
        with faults_named(self.name):
            indices, labels = zip(*parsed.batch(1024).as_numpy_iterator(), strict=True)
        ordered = np.concatenate(labels)[np.argsort(np.concatenate(indices))]
        if where:
            cache.write(where, {"labels": ordered})
        return ordered

    def parse(self, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return record

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """The pixels as TFDS has them, but of an animation the first picture."""
        image = tf.image.decode_image(encoded, channels=self.channels, expand_animations=False)
        return tf.ensure_shape(image, self._image.shape)

    def cuts(self, encoded: tf.Tensor) -> tf.Tensor:
        return tf.io.is_jpeg(encoded)


class Shards(Prepared):
    """A split in TFRecord files, read in another order of the files each epoch."""

    @property
    def _paths(self) -> list[pathlib.Path]:
        return [pathlib.Path(path) for path in self.builder.info.splits[self.split].filepaths]

    @property
    def place(self) -> pathlib.Path:
        return pathlib.Path(self.builder.data_path)

    def are_there(self) -> bool:
        """Whether the files are."""
        with faults_named(self.name):
            return all(path.is_file() for path in self._paths)

    def identity(self) -> list:
        with faults_named(self.name):
            files = self._files()
        lengths = self.builder.info.splits[self.split].shard_lengths
        return [self.builder.info.full_name, self.split, list(lengths), files]

    def _files(self) -> list:
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in self._paths]

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        lengths = self.builder.info.splits[self.split].shard_lengths
        starts = tf.constant(np.cumsum([0, *lengths[:-1]]), tf.int64)
        paths = tf.constant([str(path) for path in self._paths])
        order = tf.range(len(lengths)) if key is None else _order(len(lengths), key)
        files = tf.data.Dataset.from_tensor_slices((tf.gather(paths, order), tf.gather(starts, order)))
        return files.interleave(
            lambda path, start: tf.data.TFRecordDataset(path).enumerate(start),
            cycle_length=1 if key is None else OPEN_FILES,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def parse(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = self._keys
        features = self.builder.info.features
        example = features.deserialize_example(record, decoders={image: tfds.decode.SkipDecoding()})
        return example[image], example[label]


class ArrayRecords(Shards):
    """A split in ArrayRecord files, read in another order of the examples each epoch."""

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        with faults_named(self.name):
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            source = ArrayRecordDataSource([str(path) for path in self._paths])
        order = tf.range(self.size) if key is None else _order(self.size, key)

        def read(indices):
            return np.array(source.__getitems__(indices.tolist()), object)

        def records(indices):
            return indices, tf.ensure_shape(tf.numpy_function(read, [indices], tf.string), indices.shape)

        listed = tf.data.Dataset.from_tensor_slices(tf.cast(order, tf.int64))
        return listed.batch(AT_ONCE).map(records).unbatch().prefetch(tf.data.AUTOTUNE)


@dataclass(frozen=True)
class Files:
    """A split of a folder of pictures, ordered by class and name.

    Attributes:
        root: PATH of `folder:PATH`.
        split: name of the split.
        classes: the classes' names.
        listed: what the split holds.
        beside: the folder beside which decoded copies may lie.
    """

    root: pathlib.Path
    split: str
    classes: tuple[str, ...]
    listed: folder.Split
    beside: pathlib.Path

    @property
    def name(self) -> str:
        return f"folder:{self.root}, {self.split}"

    @property
    def size(self) -> int:
        return len(self._pictures)

    @property
    def channels(self) -> int:
        return 3

    @property
    def label(self) -> tfds.features.ClassLabel:
        return tfds.features.ClassLabel(names=self.classes)

    @property
    def place(self) -> pathlib.Path:
        return self.beside

    @functools.cached_property
    def _pictures(self) -> list[folder.Picture]:
        return [picture for name in self.classes for picture in self.listed.pictures.get(name, [])]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        counts = [len(self.listed.pictures.get(name, [])) for name in self.classes]
        return np.repeat(np.arange(len(self.classes)), counts)

    def content(self) -> list:
        return self.identity()

    def identity(self) -> list:
        files = [[os.path.relpath(p.path, self.root), p.size, p.changed] for p in self._pictures]
        return [str(self.root), self.split, files, self.labels.tolist()]

    def describe(self, index: int) -> str:
        return self._pictures[index].path

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        order = tf.range(self.size) if key is None else _order(self.size, key)
        listed = tf.data.Dataset.from_tensor_slices(tf.cast(order, tf.int64))
        paths = tf.constant([os.fsencode(picture.path) for picture in self._pictures], tf.string)
        labels = tf.constant(self.labels)
        return listed.map(lambda i: (i, (paths[i], labels[i])))

    def parse(self, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(record[0]), record[1]

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        return decoding.decode(encoded)

    def cuts(self, encoded: tf.Tensor) -> tf.Tensor:
        return decoding.is_upright_jpeg(encoded)


Reader = Prepared | Files


def _order(size: int, key: tf.Tensor) -> tf.Tensor:
    return tf.argsort(tf.random.stateless_uniform((size,), key))
