import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bnhead import DeadUnits
from bnhead.data import load
from bnhead.devices.processes import Processes
from bnhead.devices.replicas import Replicas
from bnhead.training.build import build_model
from bnhead.training.feed import Feed
from tests.data.small_sets import smooth, write_folder

ALONE = Replicas()


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


def elements(data):
    return [[np.array(part) for part in tf.nest.flatten(element)] for element in data]


def check_equal(first, second):
    assert len(first) == len(second)
    for batch, counterpart in zip(first, second, strict=True):
        for a, b in zip(batch, counterpart, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 4), (1, 0), (2, 3)])
@pytest.mark.parametrize("settings", [{}, {"mixup": 0.4, "cutout": 2}, {"head": "cdropout0.5_fc"}])
def test_batches_from_a_step_on_are_those_that_would_have_come(short_config, digits, epoch, step, settings):
    config = short_config(epochs=3, **settings)
    feed = Feed.of(config, digits, ALONE)
    full, remainder = elements(feed.train(0, 0)), elements(feed.train(epoch, step))
    assert len(full) == 15
    check_equal(remainder, full[epoch * 5 + step :])
    assert feed.train(epoch, step).cardinality() == len(remainder)


@pytest.fixture
def streamed(short_config, tmp_path, data_dir):
    """A config, and its 24 pictures, which are decoded at each use."""
    pictures = {
        f"{split}/{name}/{i}.png": smooth(16, 16, i + 50 * (name == "b"))
        for split, count in (("train", 12), ("test", 2))
        for name in "ab"
        for i in range(count)
    }
    name = f"folder:{write_folder(tmp_path / 'pictures', pictures)}"
    config = short_config(dataset=name, image_size=16, augment="imagenet", batch_size=8, epochs=3)
    data = load(name, data_dir, image_size=16, memory_limit=0)
    assert not data.train.in_memory
    return config, data


def test_streamed_batches_from_a_step_on(streamed):
    feed = Feed.of(*streamed, ALONE)
    full = elements(feed.train(0, 0))
    assert len(full) == 9
    check_equal(elements(feed.train(1, 2)), full[5:])


def of_each_process(config, data, number):
    """The feed of each of so many processes."""
    return [Feed.of(config, data, Replicas(number, Processes(number, index))) for index in range(number)]


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": "none"},
        {"augment": "crop"},
        {"augment": "crop_flip", "cutout": 3},
        {"augment": "imagenet"},
        {"mixup": 0.4},
        {"head": "cdropout0.5_fc"},
    ],
)
def test_processes_make_the_batches_of_one_each_its_rows(short_config, digits, settings):
    config = short_config(epochs=2, **settings)
    whole = elements(Feed.of(config, digits, ALONE).train(0, 3))
    parts = [elements(feed.train(0, 3)) for feed in of_each_process(config, digits, 4)]
    assert all(len(batch[0]) == 64 for part in parts for batch in part)
    check_equal(
        [[np.concatenate(pieces) for pieces in zip(*b, strict=True)] for b in zip(*parts, strict=True)], whole
    )


def test_a_process_decodes_the_pictures_of_its_rows_alone(streamed, monkeypatch):
    config, data = streamed
    alone, *two = Feed.of(config, data, ALONE), *of_each_process(config, data, 2)
    decoded, reader = [], type(data.train.reader)
    decode = reader.decode

    def counted(self, encoded):
        with tf.control_dependencies([tf.numpy_function(lambda: decoded.append(1) or 0, [], tf.int64)]):
            return decode(self, tf.identity(encoded))

    monkeypatch.setattr(reader, "decode", counted)
    whole = elements(alone.train(0, 3))
    assert len(decoded) == 6 * 8
    first, second = (elements(feed.train(0, 3)) for feed in two)
    joined = [
        [np.concatenate(pair) for pair in zip(*b, strict=True)] for b in zip(first, second, strict=True)
    ]
    check_equal(joined, whole)
    assert len(decoded) == 2 * 6 * 8, "as many by both together as by one"


def test_evaluation_and_probe_are_the_test_split_in_order(short_config, digits):
    config = short_config(probe_examples=300)
    observed = elements(Feed.of(config, digits, ALONE).test())
    np.testing.assert_array_equal(np.concatenate([x for x, _ in observed]), digits.test.images)
    probed = elements(Feed.of(config, digits, ALONE).probe())
    np.testing.assert_array_equal(np.concatenate([y for _, y in probed]), digits.test.labels[:300])


def test_metrics_have_variables_before_anything_is_fed(short_config, digits):
    model = build_model(short_config(), digits)
    initial = len(model.metrics_variables)
    Feed.of(short_config(), digits, ALONE).build_metrics(model)
    assert len(model.metrics_variables) > initial and not any(np.any(v) for v in model.metrics_variables)


def large_int32(function, *specs):
    """Names of the int32 tensors above 1 MB that a compiled function captures or holds as constants."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    constants = [op.outputs[0] for op in graph.get_operations() if op.type == "Const"]
    tensors = [*(inside for _, inside in graph.captures), *constants]
    return [t.name for t in tensors if t.dtype == tf.int32 and 4 * (t.shape.num_elements() or 0) > 1e6]


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": "crop_flip", "cutout": 2},
        pytest.param({"head": "cdropout0.5_fc"}, marks=pytest.mark.slow),
    ],
)
def test_no_large_int32_tensor_goes_into_a_compiled_step(short_config, digits, settings):
    """TensorFlow holds such a tensor in host memory, and copies it to the GPU at every step."""
    config = short_config(**settings)
    many = dataclasses.replace(digits, train=digits.train.take(np.arange(digits.train.size).repeat(12)))
    assert many.train.images.nbytes > 1e6, "larger than what is looked for"
    model, census = build_model(config, many), DeadUnits(layers="all")
    census.set_model(model)
    census.on_train_begin()
    specs = Feed.of(config, many, ALONE).train(0, 0).element_spec
    assert large_int32(model.train_step, specs) == []
    census.on_train_end()
    words = tf.constant(many.train.images.reshape(-1, 4).view(np.int32))
    assert large_int32(lambda data: (tf.gather(words, [0]), model.train_step(data)), specs), (
        "one would be found"
    )
