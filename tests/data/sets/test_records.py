import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from bnhead.data import cache, load
from bnhead.data.sets.records import ArrayRecords, Prepared, Shards
from bnhead.data.stream import Streamed
from bnhead.errors import DataError
from tests.data.small_sets import write_set


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A set of 50 numbered images in 7 files."""
    folder = tmp_path_factory.mktemp("sharded")
    examples = [(np.full((4, 4, 1), i, np.uint8), i % 2) for i in range(50)]
    label = tfds.features.ClassLabel(num_classes=2)
    write_set(folder, "many", tfds.features.Image(shape=(4, 4, 1)), label, examples, shards=7)
    return str(folder)


def read(reader, key=None):
    """Index, first pixel and label of all records."""
    rows = []
    for index, record in reader.records(key):
        encoded, label = reader.parse(record)
        rows.append((int(index), int(reader.decode(encoded)[0, 0, 0]), int(label)))
    return rows


def test_shards_are_in_order_or_all_in_another(sharded):
    builder = tfds.builder("many", data_dir=sharded)
    reader = Shards(builder, "train")
    assert reader.files_exist() and len(builder.info.splits["train"].shard_lengths) == 7
    rows = read(reader)
    assert [index for index, _, _ in rows] == list(range(50))
    assert sorted(pixel for _, pixel, _ in rows) == list(range(50))
    one, same, other = (read(reader, tf.constant(key)) for key in ([1, 0], [1, 0], [1, 1]))
    assert one == same != other and sorted(one) == sorted(other) == rows
    assert [index for index, _, _ in one] != list(range(50))


@pytest.fixture(scope="module")
def array_records(tmp_path_factory):
    """The set of `sharded` in 3 ArrayRecord files."""
    folder = tmp_path_factory.mktemp("array_records")
    examples = [(np.full((4, 4, 1), i, np.uint8), i % 2) for i in range(50)]
    label = tfds.features.ClassLabel(num_classes=2)
    image = tfds.features.Image(shape=(4, 4, 1))
    write_set(folder, "many", image, label, examples, shards=3, kind="array_record")
    return str(folder)


def test_array_records_are_in_order_or_all_in_another(array_records):
    reader = ArrayRecords(tfds.builder("many", data_dir=array_records), "train")
    rows = read(reader)
    assert [index for index, _, _ in rows] == list(range(50))
    assert sorted(pixel for _, pixel, _ in rows) == list(range(50))
    assert all(label == pixel % 2 for _, pixel, label in rows)
    one, same, other = (read(reader, tf.constant(key)) for key in ([1, 0], [1, 0], [1, 1]))
    assert one == same != other and sorted(one) == sorted(other) == rows


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_set_of_array_records_is_loaded(array_records, memory_limit):
    data = load("many", array_records, memory_limit=memory_limit, cached=False)
    assert data.train.in_memory or isinstance(data.train.reader, ArrayRecords)
    seen = {
        (int(image[0, 0, 0]), int(label))
        for images, labels in data.train.training_batches(10, 1, 0, "none").as_numpy_iterator()
        for image, label in zip(images, labels, strict=True)
    }
    assert seen == {(i, i % 2) for i in range(50)}
    kept = load("many", array_records).train
    np.testing.assert_array_equal(data.train.labels, kept.images[:, 0, 0, 0] % 2)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_shard_that_cannot_be_read_is_one_line(tmp_path, memory_limit, monkeypatch):
    """As of another user; a folder in the place of the file fails for root too."""
    image, label = tfds.features.Image(shape=(4, 4, 1)), tfds.features.ClassLabel(num_classes=2)
    write_set(tmp_path, "own", image, label, [(np.zeros((4, 4, 1), np.uint8), i % 2) for i in range(4)])
    (shard,) = (tmp_path / "own/1.0.0").glob("*-train.tfrecord*")
    shard.unlink()
    shard.mkdir()
    monkeypatch.setattr(Shards, "files_exist", lambda _: True)
    with pytest.raises(DataError, match=r"^own/1\.0\.0, train.* cannot be read: .*directory") as caught:
        load("own", str(tmp_path), memory_limit=memory_limit)
    assert "\n" not in str(caught.value) and "{{" not in str(caught.value)


def test_a_closed_folder_is_one_line(sharded, monkeypatch):
    def closed(_):
        raise PermissionError(13, "Permission denied")

    reader = Shards(tfds.builder("many", data_dir=sharded), "train")
    monkeypatch.setattr("pathlib.Path.is_file", closed)
    monkeypatch.setattr("pathlib.Path.stat", closed)
    for ask in (reader.files_exist, reader.identity):
        with pytest.raises(DataError, match=r"many/1\.0\.0, train cannot be read: .*Permission denied"):
            ask()


def test_tfds_own_reader_gives_the_same_examples(sharded):
    builder = tfds.builder("many", data_dir=sharded)
    through_tfds = read(Prepared(builder, "train"))
    assert sorted(row[1:] for row in through_tfds) == sorted(
        row[1:] for row in read(Shards(builder, "train"))
    )
    assert Prepared(builder, "train").identity() is None


def test_a_format_that_cannot_be_read_is_one_line(sharded, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("not as tf.data")

    reader = Prepared(tfds.builder("many", data_dir=sharded), "train")
    monkeypatch.setattr(type(reader.builder), "as_dataset", refuse)
    with pytest.raises(DataError, match=r"many/1\.0\.0, train cannot be read: not as tf\.data"):
        Streamed(reader, (4, 4, 1)).decoded()
    with pytest.raises(DataError, match=r"many/1\.0\.0, train cannot be read: not as tf\.data"):
        reader.labels  # noqa: B018


def test_streamed_labels_are_those_of_their_images(sharded):
    streamed = load("many", sharded, memory_limit=0).train
    kept = load("many", sharded).train
    for _ in range(2):  # the second time from their copy on disk
        np.testing.assert_array_equal(streamed.labels, kept.labels)
        streamed = load("many", sharded, memory_limit=0).train
    np.testing.assert_array_equal(kept.labels, kept.images[:, 0, 0, 0] % 2)


def test_labels_are_read_once_even_where_no_copy_can_be_kept(sharded, monkeypatch):
    monkeypatch.setattr(cache, "write_arrays", lambda *_: "Read-only file system")
    monkeypatch.setattr(cache, "read_arrays", lambda _: None)
    streamed = load("many", sharded, memory_limit=0, imbalance="step:2", label_noise=0.1).train
    monkeypatch.setattr(Shards, "records", None)
    assert len(streamed.reader.labels) == 50
    assert streamed.take(np.arange(3)).labels.shape == (3,)


def test_a_file_that_changed_is_another_identity(sharded):
    reader = Shards(tfds.builder("many", data_dir=sharded), "train")
    before = reader.identity()
    reader._paths[0].touch()
    assert reader.identity() != before and reader.identity()[:3] == before[:3]


def test_a_gif_in_a_set_is_its_first_picture(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image, label = tfds.features.Image(shape=(4, 4, 3)), tfds.features.ClassLabel(num_classes=2)
    write_set(tmp_path, "own", image, label, [(str(tmp_path / "a.gif"), i) for i in (0, 1)])
    images = load("own", str(tmp_path)).train.images
    assert (images == [255, 0, 0]).all() and images.shape == (2, 4, 4, 3)
