"""Steps on a source and a target domain, pseudo labels, and runs that resume exactly."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from bnhead.data import load
from bnhead.devices.replicas import Replicas
from bnhead.errors import DataError, UsageError
from bnhead.layers import RoutedBatchNormalization, at_route, with_routes
from bnhead.runs.directory import RunDirectory
from bnhead.training import TrainConfig, train
from bnhead.training.adaptation import Teacher, Teaching, pseudo_labels, train_with_target
from bnhead.training.build import Reuse
from bnhead.training.feed import DataUsed, Feed
from bnhead.training.reopen import open_source
from bnhead.training.run import prepare_training, restore_or_start
from tests.training.test_attack import data, net


def test_pseudo_labels_go_from_the_teachers_to_the_students():
    random = np.random.default_rng(0)
    teacher, student = random.dirichlet(np.ones(4), (2, 200))
    for progress in (0.0, 0.05, 0.3, 1.0):
        share = 2 / (1 + np.exp(-10 * progress)) - 1
        expected = ((1 - share) * teacher + share * student).argmax(1)
        np.testing.assert_array_equal(pseudo_labels(teacher, student, progress), expected)
    np.testing.assert_array_equal(pseudo_labels(teacher, student, 0.0), teacher.argmax(1))
    assert (pseudo_labels(teacher, student, 1.0) == student.argmax(1)).numpy().mean() > 0.99


def routed_net():
    plain = net()
    model = with_routes(plain, 2, default_route=1, as_input=False)
    (norm,) = (layer for layer in model.layers if isinstance(layer, RoutedBatchNormalization))
    norm.branches[1].moving_mean.assign(norm.branches[1].moving_mean + 0.5)
    model.compile(keras.optimizers.SGD(0.0), plain.loss)
    return model, norm


def teacher_of(model):
    return next(each for each in model._seed_generators if isinstance(each, Teacher)).state


@pytest.mark.parametrize(
    ("done", "labelling", "weight"), [(0, True, 0), (10, True, 2), (15, True, 2), (15, False, 0)]
)
def test_a_step_has_both_domains_and_labels_the_target_from_half_on(done, labelling, weight):
    (model, _), (images, labels), seen = routed_net(), data(), []

    def step(batch):
        seen.append((*map(np.asarray, batch), np.asarray(model(batch[0], training=False))))

    model.train_step = step
    train_with_target(model, 9, half=10, steps=20, routed=True, labelling=labelling)
    teacher = np.random.default_rng(1).dirichlet(np.ones(3), 9).astype("float32")
    teacher_of(model).assign(teacher)
    model.optimizer.iterations.assign(done)
    target, indices = images[::-1] / 2, np.array([8, 0, 3, 3, 1, 2, 7])
    model.train_step(((images, target), (labels, indices)))
    trained, targets, weights, outputs = seen[0]
    np.testing.assert_allclose(trained, np.concatenate([images, target]))
    assert targets[:7].tolist() == labels.tolist() and weights.tolist() == [2.0] * 7 + [weight] * 7
    np.testing.assert_allclose(outputs[:7], at_route(model, 0)(images), rtol=1e-4, atol=1e-4)
    on_target = at_route(model, 1)(target)
    np.testing.assert_allclose(outputs[7:], on_target, rtol=1e-4, atol=1e-4)
    student, progress = ops.softmax(on_target), float(np.clip((done - 10) / 10, 0, 1))
    np.testing.assert_array_equal(targets[7:], pseudo_labels(teacher[indices], student, progress))


def test_each_domain_moves_its_own_statistics():
    (model, norm), (images, labels) = routed_net(), data(8)
    plain = net()
    plain.compile(keras.optimizers.SGD(0.0), plain.loss)
    train_with_target(model, 8, half=1, steps=2, routed=True, labelling=True)
    for domain in (images, 255 - images):
        alone = net()
        alone.compile(keras.optimizers.SGD(0.0), plain.loss)
        alone.layers[4].moving_mean.assign(norm.branches[int(domain is not images)].moving_mean)
        alone.train_on_batch(domain, labels)
        plain = alone if domain is images else (plain, alone)
    expected = [each.layers[4].moving_mean for each in plain]
    model.train_on_batch((images, 255 - images), (labels, np.arange(8)))
    for branch, mean in zip(norm.branches, expected, strict=True):
        np.testing.assert_allclose(branch.moving_mean, mean, rtol=1e-5, atol=1e-6)


DOMAINS = "domains:digits,digits+contrast:3"


def config_of(**settings):
    return TrainConfig(**{"dataset": DOMAINS, "adaptation": "dsbn", "backbone": "resnet8", **settings})


def test_batches_pair_the_domains_and_go_on_from_any_step(data_dir):
    config = config_of(batch_size=300, data_dir=data_dir, train_examples=1000)
    images = load(DOMAINS, data_dir, unlabelled_target=True, train_examples=1000)
    feed = Feed.of(config, images, Replicas())
    assert feed.reads_target and feed.steps == 3
    target = images.target
    batches = list(feed.train(0, 0, 3).as_numpy_iterator())
    assert len(batches) == 9
    for (source, more), (labels, indices) in batches:
        assert source.shape == more.shape == (300, 8, 8, 1) and labels.max() < 10
        assert len(set(indices)) == 300 and indices.max() < target.size
    later = list(feed.train(1, 2, 2).as_numpy_iterator())
    assert len(later) == 4
    for resumed, batch in zip(later, batches[5:], strict=True):
        for a, b in zip(keras.tree.flatten(resumed), keras.tree.flatten(batch), strict=True):
            np.testing.assert_array_equal(a, b)
    few = dataclasses.replace(images, target=target.take(np.arange(10)))
    with pytest.raises(RuntimeError, match="batch_size must be at most the 10 images of the target, got 300"):
        Feed.of(config, few, Replicas()).train(0, 0)


def test_the_teacher_is_asked_once_at_half_of_the_epochs(data_dir):
    (model, _), images = routed_net(), load(DOMAINS, data_dir, unlabelled_target=True).target
    small = dataclasses.replace(images, images=images.images[:, :2, :2])
    train_with_target(model, small.size, half=1, steps=2, routed=True, labelling=True)
    teaching = Teaching(small, 5)
    teaching.set_model(model)
    teaching.on_epoch_begin(1)
    assert not np.asarray(teacher_of(model)).any()
    teaching.on_epoch_begin(2)
    logits = at_route(model, 1).predict(small.images.astype("float32"), verbose=0)
    np.testing.assert_allclose(teacher_of(model), ops.softmax(logits), rtol=1e-4, atol=1e-5)


class Stop(keras.callbacks.Callback):
    """Ends a run in the middle of its second half."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_resumes_exactly_in_its_second_half(short_config):
    settings = {"dataset": DOMAINS, "adaptation": "dsbn", "checkpoint_seconds": 0.0, "train_examples": 768}
    whole, parts = short_config(**settings), short_config(**settings)
    result = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(parts, [Stop()])
    assert dict(train(parts)) == dict(result)
    assert result["data"]["test"] == 360 and result["data"]["train"] == 768


def test_a_target_of_less_than_a_batch_is_refused_before_training(short_config, monkeypatch):
    config = short_config(dataset=DOMAINS, adaptation="adabn", batch_size=64)
    reuse = Reuse()
    data = dataclasses.replace(reuse.data(config), target=reuse.data(config).target.take(np.arange(40)))
    monkeypatch.setattr(reuse, "data", lambda config: data)
    with pytest.raises(DataError, match="at most the 40 images of the target, got 64"):
        prepare_training(config, Replicas(), reuse)


def test_an_adapted_run_is_opened_with_the_images_of_its_test(short_config):
    config = short_config(dataset=DOMAINS, adaptation="source", epochs=1)
    result = train(config)
    source = open_source(config.workdir, data_dir=config.data_dir)
    assert source.dataset.test.fingerprint() == result["data"]["test_sha256"]


@pytest.mark.parametrize("adversarial", ["none", "pgd"])
def test_the_first_guess_of_routed_norms_is_neutral_too(short_config, adversarial):
    config = short_config(neutral_init=True, adversarial=adversarial, imbalance="longtail:10")
    feed, model, _, _, choices, _ = prepare_training(config, Replicas(), Reuse())
    restore_or_start(RunDirectory(config.directory), config.settings(), DataUsed(feed), model, choices)
    images = np.concatenate([x for x, _ in feed.raw_epoch().as_numpy_iterator()])
    logits = model(images, training=True)
    np.testing.assert_allclose(np.mean(logits, 0), feed.prior_logits(), atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["source", "adabn", "pseudo", "dsbn_1"])
def test_every_adaptation_trains(short_config, adaptation):
    result = train(short_config(dataset=DOMAINS, adaptation=adaptation, train_examples=768))
    assert result["status"] == "finished" and 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adaptation": "dann"}, "adaptation 'dann' is not known; did you mean 'adabn'"),
        ({"dataset": "digits"}, "adaptation dsbn needs dataset domains:SOURCE,TARGET, got 'digits'"),
        ({"mixup": 0.1}, "adaptation dsbn needs mixup 0.0, got 0.1"),
        ({"adversarial": "pgd"}, "adaptation dsbn needs adversarial 'none', got 'pgd'"),
        ({"validation": 0.2}, "adaptation dsbn needs validation 0, since"),
        ({"class_weights": "inverse"}, "adaptation dsbn needs class_weights 'none', got 'inverse'"),
        ({"head": "brn_fc"}, "head 'brn_fc': brn has no second set of statistics"),
        ({"adaptation": "adabn", "recompute_batch_stats": "all"}, "needs recompute_batch_stats 'none'"),
        ({"dataset": "domains:digits,digits+blurr:3"}, "'blurr:3' is not known"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as error:
        config_of(**settings)
    assert "\n" not in str(error.value)
