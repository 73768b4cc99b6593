"""Where examples come from, before any picture is decoded: TFRecord files, what else TFDS reads, a folder.

A reader has a `name`, a `size` and

    records(key)    a tf.data.Dataset of (index, record): in order for None, else in an order by the (2,) key
    parse(record)   the encoded picture, a string, and the label
    decode(encoded) the picture, (height, width, channels) uint8
    labels          all labels, in order; read once, without a picture being decoded
    identity()      what tells this content from any other, without reading it; None where nothing does
    place           the folder beside which decoded copies may lie, or None
    describe(index) how to call one example in a message
"""

import functools
import pathlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead.data import cache

OPEN_FILES = 16
EXTENSIONS = (".jpg", ".jpeg", ".png")  # those of TFDS' ImageFolder


@dataclass(frozen=True)
class Prepared:
    """A split of a prepared TFDS set, in whatever format, through TFDS' own reader.

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
        return self.builder.info.features[self._keys[0]].shape[-1]

    @property
    def place(self) -> pathlib.Path | None:
        return None

    @property
    def _keys(self) -> tuple[str, str]:
        return self.builder.info.supervised_keys

    def identity(self) -> list | None:
        return None

    def describe(self, index: int) -> str:
        return f"example {index} of {self.name}"

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        examples = self.builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            decoders={self._keys[0]: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        image, label = self._keys
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
        indices, labels = zip(*parsed.batch(1024).as_numpy_iterator(), strict=True)
        ordered = np.concatenate(labels)[np.argsort(np.concatenate(indices))]
        if where:
            cache.write(where, {"labels": ordered})
        return ordered

    def parse(self, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return record

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        return self.builder.info.features[self._keys[0]].decode_example(encoded)


class Shards(Prepared):
    """A split in TFRecord files, read in another order of the files each epoch."""

    @property
    def _paths(self) -> list[pathlib.Path]:
        return [pathlib.Path(path) for path in self.builder.info.splits[self.split].filepaths]

    @property
    def place(self) -> pathlib.Path:
        return pathlib.Path(self.builder.data_path)

    def are_there(self) -> bool:
        """Whether the files are, and in the format that is read here."""
        of_records = self.builder.info.file_format == tfds.core.FileFormat.TFRECORD
        return of_records and all(path.is_file() for path in self._paths)

    def identity(self) -> list:
        files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in self._paths]
        lengths = self.builder.info.splits[self.split].shard_lengths
        return [self.builder.info.full_name, self.split, list(lengths), files]

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


@dataclass(frozen=True)
class Files(Prepared):
    """A split of TFDS' ImageFolder, ordered by name: TFDS' own order depends on the file system.

    Attributes:
        builder: the ImageFolder.
        split: name of the split, a folder of folders of pictures.
        root: PATH of `folder:PATH`.
        beside: the folder beside which decoded copies may lie.
    """

    root: pathlib.Path
    beside: pathlib.Path

    @property
    def name(self) -> str:
        return f"folder:{self.root}, {self.split}"

    @property
    def size(self) -> int:
        return len(self._listed[0])

    @property
    def place(self) -> pathlib.Path:
        return self.beside

    @functools.cached_property
    def _listed(self) -> tuple[list[str], np.ndarray]:
        """Paths and labels of the pictures."""
        paths, labels = [], []
        for label, name in enumerate(self.builder.info.features["label"].names):
            found = sorted((self.root / self.split / name).glob("*"))
            mine = [str(path) for path in found if path.suffix.lower() in EXTENSIONS]
            paths += mine
            labels += [label] * len(mine)
        return paths, np.array(labels, np.int64)

    def identity(self) -> list:
        paths, labels = self._listed
        stats = [(path, pathlib.Path(path).stat()) for path in paths]
        files = [
            [str(pathlib.Path(path).relative_to(self.root)), s.st_size, s.st_mtime_ns] for path, s in stats
        ]
        return [str(self.root), self.split, files, labels.tolist()]

    def describe(self, index: int) -> str:
        return self._listed[0][index]

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        paths, labels = self._listed
        order = tf.range(self.size) if key is None else _order(self.size, key)
        listed = tf.data.Dataset.from_tensor_slices(tf.cast(order, tf.int64))
        paths, labels = tf.constant(paths, tf.string), tf.constant(labels)
        return listed.map(lambda i: (i, (paths[i], labels[i])))

    def parse(self, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(record[0]), record[1]

    @property
    def labels(self) -> np.ndarray:
        return self._listed[1]


def _order(size: int, key: tf.Tensor) -> tf.Tensor:
    return tf.argsort(tf.random.stateless_uniform((size,), key))
