import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.models import resnet8
from bnhead.training.sgd import FusedSGD


def trained(optimizer, steps=6):
    """All values of a model and of its optimizer after some steps."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8, 8, 1)).astype("float32"), rng.integers(0, 3, 16)
    model = resnet8((8, 8, 1), "bn_fc", 3, seed=0)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(steps):
        model.train_on_batch(x, y)
    names = [v.path.split("/", 1)[-1] for v in optimizer.variables]
    return names, [np.array(v) for v in (*model.variables, *optimizer.variables)]


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"momentum": 0.9, "nesterov": False},
        {"momentum": 0.0},
    ],
)
def test_its_steps_are_those_of_keras(options):
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 6, warmup_target=0.05, warmup_steps=2)
    names, values = trained(FusedSGD(schedule, **options))
    expected_names, expected = trained(keras.optimizers.SGD(schedule, **options))
    assert [name.replace("fused_", "") for name in names] == expected_names
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)


def test_one_operation_updates_a_weight_and_its_momentum():
    weight = keras.Variable(np.ones(3, "float32"))
    sgd = FusedSGD(0.5, momentum=0.9, nesterov=True)
    sgd.build([weight])

    @tf.function
    def step(gradient):
        sgd.apply([gradient], [weight])

    operations = step.get_concrete_function(tf.ones(3)).graph.get_operations()
    assert [op.type for op in operations].count("ResourceApplyKerasMomentum") == 1
    step(tf.constant([1.0, 2.0, 0.0]))
    # m = -0.5 g; w = 1 + 0.9 m - 0.5 g
    np.testing.assert_allclose(weight, [0.05, -0.9, 1.0], rtol=1e-6)
    np.testing.assert_allclose(sgd.momentums[0], [-0.5, -1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_slow_variables_have_the_rate_and_the_decay_of_a_smaller_rate(momentum):
    """Against NumPy: w <- w (1 - rate decay), m <- momentum m - rate g, w <- w + momentum m - rate g."""
    weights = [keras.Variable(np.full(3, 2.0, "float32")) for _ in range(2)]
    optimizer = FusedSGD(0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=0.5)
    optimizer.slow_down([weights[1]], 0.2)
    expected, speeds = np.full((2, 3), 2.0), np.zeros((2, 3))
    rates = np.array([[0.1], [0.02]])
    for gradient in (1.0, -3.0):
        optimizer.apply([keras.ops.full((3,), gradient) for _ in weights], weights)
        expected *= 1 - 0.5 * rates
        speeds = momentum * speeds - rates * gradient
        expected += momentum * speeds - rates * gradient
    np.testing.assert_allclose(np.array(weights), expected, rtol=1e-6)
    assert optimizer.weight_decay == 0.5
