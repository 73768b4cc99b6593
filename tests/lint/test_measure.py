import keras
import numpy as np
import pytest
from keras import layers

from bnhead.lint.measure import measure
from bnhead.lint.net import read_net
from bnhead.mechanisms import variance_shift
from tests.lint.nets import X, norm, sequential


def parts(x, size=100):
    return [x[i : i + size] for i in range(0, len(x), size)]


def test_moments_of_batches_in_both_modes():
    model = sequential(layers.Dense(8, name="fc"), layers.Dropout(0.5), norm(), layers.ReLU(name="relu"))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    weights = [np.array(w) for w in model.variables]
    measured = measure(read_net(model), parts(X))
    features = measured.norms["bn"]
    kernel, bias = model.get_layer("fc").get_weights()
    h = X.astype("float64") @ kernel + bias
    within = np.mean([batch.var(0) for batch in parts(h)], axis=0)
    assert features.evaluated_variance == pytest.approx(within, rel=1e-4)
    # x b / keep of a Bernoulli b: E[x^2] / keep - E[x]^2, here from 600 examples
    expected = (h**2).mean(0) / 0.5 - h.mean(0) ** 2
    assert np.median(features.variance / expected) == pytest.approx(1, abs=0.05)
    assert (measured.examples, measured.batch_size) == (600, 100)
    # inference by the statistics that training saw, not by the moving averages, which are wild here
    gamma, beta, *_ = model.get_layer("bn").get_weights()
    z = gamma * (h - features.mean) / np.sqrt(features.variance + 1e-5) + beta
    assert measured.active["relu"] == pytest.approx((z > 0).sum(0), abs=2)
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(weights, model.variables, strict=True))


def test_activity_and_extremes_count_positions_once_and_partial_batches():
    model = sequential(norm(name="first"), layers.Flatten(), inputs=(2, 3))
    x = np.zeros((250, 2, 3), "float32")
    x[:25, 0, 0] = x[:25, 1, 0] = 1  # at both positions, one example each
    x[240:, 1, 1] = -2  # in the partial batch
    features = measure(read_net(model), parts(x)).norms["first"]
    assert features.active.tolist() == [25, 10, 0] and features.lowest.tolist() == [0, -2, 0]
    assert features.variance[1] == 0, "statistics are of whole batches"


def test_every_call_of_a_norm_has_its_numbers():
    shared = norm()
    first, second = keras.Input((16,)), keras.Input((16,))
    model = keras.Model([first, second], layers.Add()([shared(first), shared(second)]))
    measured = measure(read_net(model), [[X[:100], 3 * X[:100] + 1]])
    assert list(measured.norms) == ["bn", "bn#2"]
    assert measured.norms["bn#2"].mean == pytest.approx(3 * X[:100].mean(0) + 1, abs=1e-4)
    assert measured.norms["bn#2"].variance == pytest.approx(9 * X[:100].var(0), rel=1e-4)


def test_masked_positions_do_not_count():
    x = np.ones((10, 4, 2), "float32")
    x[:, 2:] = 0  # masked, since all of it is 0
    x[5:, 0] = 3
    model = sequential(layers.Masking(), norm(), layers.GlobalAveragePooling1D(), inputs=(4, 2))
    features = measure(read_net(model), [x]).norms["bn"]
    assert features.mean == pytest.approx([1.5, 1.5]) and features.variance == pytest.approx([0.75, 0.75])


def test_outputs_in_training():
    model = sequential(norm(), outputs=0)
    outputs = measure(read_net(model), parts(X, 300)).outputs
    assert outputs.shape == (600, 16) and outputs.mean(0) == pytest.approx(np.zeros(16), abs=1e-4)
    assert measure(read_net(model), []) is None


def test_the_shift_of_dropout_is_that_of_the_published_formula():
    """(v + m^2) / p - m^2 over v, as `mechanisms.variance_shift` measures it, too."""
    model = sequential(layers.Dropout(0.4), norm())
    x = X + 2
    shift = measure(read_net(model), parts(x)).norms["bn"].dropout_shift
    mean, variance = x.mean(0), x.var(0)
    expected = ((variance + mean**2) / 0.6 - mean**2) / variance
    assert shift == pytest.approx(expected, rel=0.25) and np.median(shift / expected) == pytest.approx(
        1, abs=0.05
    )
    assert np.median(shift) == pytest.approx(variance_shift(model, x)["bn"].median, rel=0.07)


def test_batch_noise_is_no_shift_of_dropout():
    """Behind norms of small batches the variances of both modes differ without any dropout."""
    keras.utils.set_random_seed(0)
    model = sequential(
        *(part for i in range(4) for part in (layers.Dense(16), norm(name=f"bn{i}"), layers.ReLU()))
    )
    inputs = keras.Input((16,))
    dropped = layers.Dropout(0.01)(inputs)  # next to nothing
    features = measure(read_net(keras.Model(inputs, model(dropped))), parts(X, 6)).norms
    last = next(value for name, value in features.items() if name.endswith("bn3"))
    varying = np.isfinite(last.dropout_shift)
    ratio = np.median(last.variance[varying] / last.evaluated_variance[varying])
    assert ratio < 0.95, "inference has more variance here"
    assert np.median(last.dropout_shift[varying]) == pytest.approx(1, abs=0.06)
