"""Our layers against PyTorch's counterparts: outputs, gradients, running statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead import heads
from tests.layers.numerics import batch

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def ours(token, x):
    """The layer of a token, built with random weights."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, heads.apply(f"{token}_out", inputs, 2, seed=0))
    layer = model.layers[-2]
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(np.random.default_rng(i).uniform(0.5, 1.5, weight.shape))
    return layer


def with_gradients(layer, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * upstream(y.shape))
    return np.asarray(y), np.asarray(tape.gradient(loss, x))


def upstream(shape):
    return np.random.default_rng(3).normal(size=tuple(shape)).astype("float32")


def in_torch(function, x):
    x = torch.tensor(x, requires_grad=True)
    y = function(x)
    (y * torch.tensor(upstream(y.shape))).sum().backward()
    return y.detach().numpy(), x.grad.numpy()


def compare(layer, function, x):
    for actual, expected in zip(with_gradients(layer, x), in_torch(function, x), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("token", ["bn", "gbn8"])
@pytest.mark.parametrize("examples", [2, 5, 8])
def test_batch_norm(token, examples):
    """Keras' momentum 0.9 is PyTorch's 0.1; PyTorch averages the unbiased variance."""
    x = batch((examples, 6))
    layer = ours(token, x)
    norm = torch.nn.BatchNorm1d(6, eps=1e-5, momentum=0.1)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(layer.gamma.numpy()))
        norm.bias.copy_(torch.tensor(layer.beta.numpy()))
    compare(layer, norm, x)
    np.testing.assert_allclose(layer.moving_mean, norm.running_mean, rtol=1e-5, atol=1e-6)
    biased = 1 - 0.1 + 0.1 * x.var(0)
    np.testing.assert_allclose(layer.moving_variance, biased, rtol=1e-4)
    unbiased = 1 - 0.1 + 0.1 * x.var(0, ddof=1)
    np.testing.assert_allclose(norm.running_var, unbiased, rtol=1e-4)


def affine(layer):
    return [torch.tensor(weight.numpy()) for weight in layer.trainable_weights]


def test_norms_by_the_example_and_l2():
    x = batch((5, 8))
    functional = torch.nn.functional
    layer = ours("ln", x)
    compare(layer, lambda x: functional.layer_norm(x, (8,), *affine(layer), eps=1e-5), x)
    layer = ours("rms", x)
    compare(layer, lambda x: functional.rms_norm(x, (8,), *affine(layer), eps=1e-5), x)
    layer = ours("gn4", x)
    compare(layer, lambda x: functional.group_norm(x, 4, *affine(layer), eps=1e-5), x)
    layer = ours("l2", x)
    compare(layer, lambda x: affine(layer)[0] * functional.normalize(x, dim=-1), x)


def test_generalised_mean_pooling():
    x = np.abs(batch((3, 4, 4, 2))) + 0.1
    layer = ours("gem", x)
    p = affine(layer)[0]
    compare(layer, lambda x: torch.nn.functional.lp_pool2d(
        x.permute(0, 3, 1, 2), float(p), 4)[:, :, 0, 0] / 16 ** (1 / float(p)), x)  # fmt: skip
