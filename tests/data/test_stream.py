import numpy as np
import pytest
import tensorflow_datasets as tfds

from bnhead.data import load
from bnhead.data.memory import InMemory
from bnhead.data.stream import Streamed


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


def test_streamed_examples_are_those_in_memory(digits, data_dir):
    streamed = load("digits", data_dir, memory_limit=0)
    assert isinstance(digits.test, InMemory) and isinstance(streamed.test, Streamed)
    images, labels = zip(*streamed.test.evaluation_batches(77).as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), digits.test.images)
    np.testing.assert_array_equal(np.concatenate(labels), digits.test.labels)
    assert (streamed.train.size, streamed.test.size) == (1437, 360)
    assert streamed.test.fingerprint() != streamed.train.fingerprint()


def test_streamed_numbers_are_those_in_memory(data_dir):
    kept = load("digits_rotation", data_dir, task="regression")
    streamed = load("digits_rotation", data_dir, task="regression", memory_limit=0)
    np.testing.assert_array_equal(streamed.test.labels, kept.test.labels)
    np.testing.assert_allclose(streamed.target_moments(), kept.target_moments())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_mocked_imagenet_is_streamed(tmp_path):
    """TFDS' mock of imagenet2012: 1,000 classes, JPEGs of many sizes, no files."""
    builder = tfds.builder("imagenet2012", data_dir=tmp_path)
    templates = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[40],
            num_bytes=1,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=builder.data_path, dataset_name="imagenet2012", filetype_suffix="tfrecord"
            ),
        )
        for name in ("train", "validation", "test")
    ]
    builder.info.set_splits(tfds.core.SplitDict(templates))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
    with tfds.testing.mock_data(num_examples=40, data_dir=str(tmp_path)):
        data = load("imagenet2012", str(tmp_path), image_size=48, crop=True)
        assert (data.shape, len(data.classes), data.train.size) == ((48, 48, 3), 1000, 40)
        assert data.test.size == 40 and data.classes[0] == "n01440764"
        runs = [[], []]
        for batches in runs:
            for images, labels in data.train.training_batches(16, 2, 0, "imagenet").as_numpy_iterator():
                assert images.shape == (16, 48, 48, 3) and images.dtype == np.uint8 and (labels < 1000).all()
                batches.append(images.tobytes())
        assert runs[0] == runs[1] and len(set(runs[0])) == 4
        assert sum(len(labels) for _, labels in data.test.evaluation_batches(16)) == 40
