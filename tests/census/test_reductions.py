import keras
import numpy as np
import pytest

from bnhead.census import reductions
from bnhead.graph.taps import Tap


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def tap(pre_activation, output, function, **options):
    return Tap("layer", 0, function, None, pre_activation, output, **options)


def maps(seed, shape=(6, 3, 2, 5)):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * (rng.random(shape) < 0.5)).astype("float32")


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 5), (6, 3, 2, 5), (4, 2, 2, 2, 3)])
@pytest.mark.parametrize("eps", [0.0, 0.4])
def test_where_units_are_active(shape, eps):
    z = maps(0, shape)
    flat = z.reshape(shape[0], -1, shape[-1])
    tensor = keras.ops.convert_to_tensor(z)
    somewhere, everywhere = map(numpy, reductions.activity(tap(tensor, keras.ops.relu(tensor), "relu"), eps))
    np.testing.assert_array_equal(somewhere, (flat > eps).any(1))
    np.testing.assert_array_equal(everywhere, (flat > eps).all(1))
    somewhere, everywhere = map(numpy, reductions.activity(tap(None, tensor, "output"), eps))
    np.testing.assert_array_equal(somewhere, (np.abs(flat) > eps).any(1))
    np.testing.assert_array_equal(everywhere, (np.abs(flat) > eps).all(1))


def test_silence_counts_units_inputs_and_borders():
    somewhere = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    everywhere = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], bool)
    counts = {k: numpy(v).tolist() for k, v in reductions.silence(somewhere, everywhere).items()}
    assert counts == {
        "inputs_by_silent": [1, 0, 1, 0, 1],
        "runs": [1, 0, 3, 0, 1],
        "active": [2, 1, 1, 2],
        "active_everywhere": [1, 1, 0, 2],
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_magnitude_is_the_mean_over_positions_in_float32(dtype):
    z = keras.ops.cast(maps(1), dtype)
    expected = np.abs(numpy(keras.ops.cast(z, "float32"))).reshape(6, -1, 5).mean(1).sum(0)
    np.testing.assert_allclose(numpy(reductions.magnitude(z)), expected, rtol=1e-5)


def test_moments_are_sound_for_large_means_and_exact_for_constants():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(64, 4, 4, 4)).astype("float32")
    z[..., 0], z[..., 1] = 12345.678, z[..., 1] * 1e-3 + 100
    z[..., 3] = 0
    z[0, 0, 0, 3] = 1e3  # the first value far from all others
    moments = {
        k: numpy(v).astype("float64")
        for k, v in reductions.output_moments(keras.ops.convert_to_tensor(z)).items()
    }
    flat = z.reshape(-1, 4).astype("float64")
    assert moments["squares"][0] == 0
    np.testing.assert_allclose(moments["squares"] / len(flat), flat.var(0), rtol=1e-3)
    np.testing.assert_allclose(moments["mean"], flat.mean(0), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_value_marks_its_input(value):
    z = maps(2)
    z[3, 1, 1, 2] = value
    assert numpy(reductions.finite_rows(keras.ops.convert_to_tensor(z))).tolist() == [True] * 3 + [
        False,
        True,
        True,
    ]
    z[3, 2, 0, 2] = -value  # infinities that cancel
    assert not numpy(reductions.finite_rows(keras.ops.convert_to_tensor(z)))[3]


@pytest.mark.parametrize(
    ("function", "at", "expected"),
    [
        (keras.activations.relu, [-1.0, 2.0], [0, 1]),
        (lambda z: keras.activations.leaky_relu(z, 0.2), [-1.0, 2.0], [0.2, 1]),
        (keras.activations.elu, [-1.0, 2.0], [np.exp(-1), 1]),
        (keras.activations.tanh, [0.0, 3.0], [1, 1 - np.tanh(3) ** 2]),
        (lambda z: -2 * z, [1.0, 1.0], [2, 2]),
    ],
)
def test_absolute_slope(function, at, expected):
    slope = numpy(reductions.absolute_slope(function, keras.ops.convert_to_tensor(at)))
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_activity_by_class_and_of_pairs():
    somewhere = np.array([[1, 0], [1, 1], [0, 1]], bool)
    one_hot = np.eye(3, dtype="float32")[[2, 0, 2]]
    assert numpy(reductions.class_activity(somewhere, one_hot)).tolist() == [[1, 1], [0, 0], [1, 1]]
    assert numpy(reductions.coactivity(somewhere)).tolist() == [[2, 1], [1, 2]]
