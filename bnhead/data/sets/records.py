"""Readers (`reading.Reader`) of prepared TFDS sets: TFRecord and ArrayRecord files, and TFDS' own reader."""

import functools
import pathlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead.data import cache
from bnhead.data.reading import named_faults, read_order

OPEN_FILES = 16
BATCH = 64  # records of an ArrayRecord file per read


@dataclass(frozen=True)
class Prepared:
    """A split read by TFDS itself, in any format that TFDS reads as `tf.data`.

    Attributes:
        builder: the builder of the set.
        split: name of the split.
    """

    builder: tfds.core.DatasetBuilder
    split: str

    @property
    def name(self) -> str:
        return f"{self.builder.info.full_name}, {self.split}"

    @property
    def size(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @property
    def channels(self) -> int:
        return self._image.shape[-1]

    @property
    def label(self) -> tfds.features.FeatureConnector:
        return self.builder.info.features[self._keys[1]]

    @property
    def cache_dir(self) -> pathlib.Path | None:
        return None

    @property
    def _keys(self) -> tuple[str, str]:
        return self.builder.info.supervised_keys

    @property
    def _image(self) -> tfds.features.Image:
        return self.builder.info.features[self._keys[0]]

    @property
    def _lengths(self) -> list[int]:
        return self.builder.info.splits[self.split].shard_lengths

    def content(self) -> tuple:
        return self.builder.info.full_name, self.split, self._lengths

    def identity(self) -> list | None:
        return None

    def describe(self, index: int) -> str:
        return f"example {index} of {self.name}"

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        """All records in TFDS' order, whatever the key."""
        image, label = self._keys
        with named_faults(self.name):
            examples = self.builder.as_dataset(
                split=self.split,
                shuffle_files=False,
                decoders={image: tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(try_autocache=False),
            )
        return examples.map(lambda example: (example[image], example[label])).enumerate()

    @functools.cached_property
    def labels(self) -> np.ndarray:
        def read():
            # with a key, several files are read at once; the labels are sorted afterwards
            parsed = self.records(tf.constant([0, 0])).map(
                lambda index, record: (index, self.parse(record)[1]), num_parallel_calls=tf.data.AUTOTUNE
            )
            with named_faults(self.name):
                indices, labels = zip(*parsed.batch(1024).as_numpy_iterator(), strict=True)
            return {"labels": np.concatenate(labels)[np.argsort(np.concatenate(indices))]}

        return cache.load_or_make(self.cache_dir, ["labels", self.identity()], read)["labels"]

    def parse(self, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return record

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Returns the pixels as TFDS does, except that an animation gives its first picture."""
        image = tf.image.decode_image(encoded, channels=self.channels, expand_animations=False)
        return tf.ensure_shape(image, self._image.shape)

    def can_crop(self, encoded: tf.Tensor) -> tf.Tensor:
        return tf.io.is_jpeg(encoded)


class Shards(Prepared):
    """A split in TFRecord files; each key reads the files in a different order."""

    @property
    def _paths(self) -> list[pathlib.Path]:
        return [pathlib.Path(path) for path in self.builder.info.splits[self.split].filepaths]

    @property
    def cache_dir(self) -> pathlib.Path:
        return pathlib.Path(self.builder.data_path)

    def files_exist(self) -> bool:
        """Whether all files exist."""
        with named_faults(self.name):
            return all(path.is_file() for path in self._paths)

    def identity(self) -> list:
        with named_faults(self.name):
            files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in self._paths]
        return [self.builder.info.full_name, self.split, list(self._lengths), files]

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        starts = tf.constant(np.cumsum([0, *self._lengths[:-1]]), tf.int64)
        paths = tf.constant([str(path) for path in self._paths])
        order = read_order(len(self._lengths), key)
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
    """A split in ArrayRecord files; each key reads the examples in a different order."""

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        with named_faults(self.name):
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            source = ArrayRecordDataSource([str(path) for path in self._paths])

        def read(indices):
            return np.array(source.__getitems__(indices.tolist()), object)

        def read_batch(indices):
            return indices, tf.ensure_shape(tf.numpy_function(read, [indices], tf.string), indices.shape)

        indices = tf.data.Dataset.from_tensor_slices(tf.cast(read_order(self.size, key), tf.int64))
        return indices.batch(BATCH).map(read_batch).unbatch().prefetch(tf.data.AUTOTUNE)


_READERS = {tfds.core.FileFormat.TFRECORD: Shards, tfds.core.FileFormat.ARRAY_RECORD: ArrayRecords}


def reader_of(builder: tfds.core.DatasetBuilder, split: str) -> Prepared:
    """Returns the fastest reader of a split; TFDS' own for other formats and sets without files (mocks)."""
    reader_type = _READERS.get(builder.info.file_format)
    reader = reader_type and reader_type(builder, split)
    return reader if reader and reader.files_exist() else Prepared(builder, split)
