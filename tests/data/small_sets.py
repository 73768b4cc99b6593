"""Small data sets that tests write: TFDS sets, folders of pictures, splits in memory."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead.data.memory import InMemory


def numbered(size=1050):
    """A split in which an image's pixels tell its index."""
    index = np.arange(size)
    images = np.stack([index // 256, index % 256], -1).astype(np.uint8).reshape(size, 1, 1, 2)
    return InMemory(np.broadcast_to(images, (size, 8, 8, 2)).copy(), index)


def smooth(height, width, seed=0):
    """A picture `(height, width, 3)` uint8 that survives JPEG: a gradient that turns with the seed."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((y * np.cos(t) + x * np.sin(t)) / 9 + seed) for t in (seed, seed + 1, seed + 2)]
    return (127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def write_folder(root, pictures):
    """Files by their path below `root`: bytes as they are, arrays as PNG, or JPEG where the name says so."""
    for name, content in pictures.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            encode = tf.io.encode_jpeg if name.endswith((".jpg", ".jpeg")) else tf.io.encode_png
            content = encode(content).numpy()
        path.write_bytes(content)
    return root


def write_set(folder, set_name, image, label, examples, splits=("train", "test"), shards=None, kind=None):
    """A TFDS set in `folder`, written by TFDS itself; `examples` is a list of (image, label).

    `kind` is the files' format, TFRecord where it is None.
    """

    class Own(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return self.dataset_info_from_configs(features=features, supervised_keys=("image", "label"))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            yield from ((i, {"image": x, "label": y}) for i, (x, y) in enumerate(examples))

    config = tfds.download.DownloadConfig(num_shards=shards)
    Own(data_dir=folder, file_format=kind).download_and_prepare(download_config=config)


def epochs(split, count, seed=0, recipe="none", batch=100, first=0):
    """Images and labels, `(epochs, steps, batch, ...)`."""
    data = split.training_batches(batch, count, seed, recipe, first)
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    steps = split.size // batch
    assert len(labels) == count * steps == data.cardinality()
    assert {len(b) for b in labels} == {batch}
    return np.reshape(images, (count, steps, batch, *images[0].shape[1:])), np.reshape(
        labels, (count, steps, batch)
    )
