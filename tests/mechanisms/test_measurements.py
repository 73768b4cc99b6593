import os
import subprocess
import sys
import tracemalloc

import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.mechanisms import (
    Split,
    batch_noise,
    initial_guess,
    interventions,
    measure,
    neutralise,
    reference,
    variance_shift,
)
from bnhead.mechanisms.calibration import CalibrationSums
from bnhead.mechanisms.collapse import ClassMoments, neural_collapse
from bnhead.mechanisms.population import POOL
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net


def test_all_groups_together_are_those_alone():
    model, (x, y) = image_net("dropout0.5_bn_fc8"), images()
    measured = measure(model, (x, y), training_batch=8, batch_size=20)
    assert (measured.layer, measured.has_norm, measured.examples) == ("head_bn", True, 60)
    noise = batch_noise(model, (x, y), training_batch=8, batch_size=20)
    assert measured.noise.logit_sd == pytest.approx(noise.logit_sd)
    shift = variance_shift(model, (x, y), batch_size=20)["head_bn"].median
    assert measured.figures()["variance_shift"] == pytest.approx(shift)
    logits = numpy(model(x, training=False))
    sums = CalibrationSums()
    sums.add(logits, y)
    assert measured.calibration.loss == pytest.approx(sums.result().loss, rel=1e-4)
    assert measured.guess.modal_share == np.bincount(logits.argmax(1)).max() / 60
    read = numpy(keras.Model(model.input, model.get_layer("head_out").input)(x))
    of_all = neural_collapse(ClassMoments.of(read, y, 5), numpy(model.get_layer("head_out").kernel))
    assert measured.collapse.nc1 == pytest.approx(of_all.nc1, rel=1e-3)
    assert measured.collapse.nc3 == pytest.approx(of_all.nc3, rel=1e-3)
    means = np.stack([read[y == c].mean(0) for c in range(5)])
    nearest = np.linalg.norm(read[:, None] - means, axis=2).argmin(1)
    assert measured.nc4 == (nearest != logits.argmax(1)).mean()
    fc = reference(model, x).fc
    assert measured.inputs.largest_severity == pytest.approx(fc.largest_severity, rel=1e-4)


@pytest.mark.parametrize("bias", [0.0, 50.0])
def test_nc4_reads_the_bias(bias):
    model, (x, y) = vector_net("bn_fc8"), data()
    out = model.get_layer("head_out")
    out.bias.assign([bias, 0, 0, 0])
    nc4 = measure(model, (x, y), groups="collapse", training_batch=8).nc4
    share = (numpy(model(x)).argmax(1) == 0).mean()
    assert share == 1.0 if bias else share < 0.9
    read = numpy(keras.Model(model.input, out.input)(x))
    means = np.stack([read[y == c].mean(0) for c in range(4)])
    nearest = np.linalg.norm(read[:, None] - means, axis=2).argmin(1)
    assert nc4 == (nearest != numpy(model(x)).argmax(1)).mean()


@pytest.mark.parametrize("head", ["fc8", "fc8_out_bn", "bn_gap_fc8", "fbn_fc8"])
def test_heads_of_all_kinds(head):
    model, (x, y) = image_net(head), images()
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    figures = measure(model, (x, y), training_batch=8, draws=3).figures()
    assert all(np.isfinite(list(figures.values()))) and "nll" in figures
    assert ("accuracy_moving" in figures) is (head not in ("fc8",))
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))


def test_the_figures_do_not_depend_on_the_batches_of_the_pass():
    model, (x, y) = vector_net("bn_fc8"), data()
    groups = "guess,scale,calibration,inputs,rank,collapse,decay"
    first, second = (
        measure(model, (x, y), groups=groups, training_batch=8, batch_size=b).figures() for b in (7, 120)
    )
    assert list(first) == list(second)
    for name in first.keys() - {"ece_floor", "ece_excess"}:  # simulated
        assert first[name] == pytest.approx(second[name], rel=1e-3, abs=1e-6)


def test_training_data_give_the_statistics():
    model, (x, y), (other, labels) = vector_net("bn_fc8"), data(), data(200, seed=5)
    measured = measure(model, (x, y), (other, labels), "gap,inputs", training_batch=8)
    values = Split(model).features(other)["features"].astype("float64")
    moving = Split(model).moving[0]
    expected = (np.abs(moving - values.mean(0)) / values.std(0)).max()
    assert measured.gap.averages.largest == pytest.approx(expected, rel=1e-3)
    assert measured.reference_examples == 200


def test_without_labels_what_needs_them_is_left_out():
    x, _ = data()
    measured = measure(vector_net("bn_fc8"), x, training_batch=8)
    figures = measured.figures()
    assert "noise_logit_sd" in figures and "feature_norm" in figures
    assert not {"nll", "nc1", "rank_centred", "gradient_fc", "accuracy_moving", "loss_to_chance"} & set(
        figures
    )


def test_regression_has_the_figures_without_classes():
    inputs = keras.Input((12,))
    norm = keras.layers.BatchNormalization(name="bn")(keras.layers.Dense(6, "relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(norm))
    x, y = data()
    figures = measure(model, (x, y.astype("float32") + 0.5), training_batch=8).figures()
    assert figures["noise_logit_sd"] > 0 and "modal_share" not in figures and "scale_floor" not in figures


def test_it_prints_and_shows_itself():
    measured = measure(vector_net("bn_fc8"), data(), groups="noise,calibration", training_batch=8)
    text = str(measured)
    assert text.startswith("norm head_bn; 120 examples") and "NLL" in text and "ECE" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "<table" in measured._repr_html_()
    bare = measure(vector_net("fc8"), data(), groups="noise", training_batch=8)
    assert str(bare).startswith("no norm; one would be before head_fc")


def test_errors():
    with pytest.raises(UsageError, match="measure 'colapse' is not known; did you mean 'collapse'"):
        measure(vector_net("bn_fc8"), data(), groups="colapse", training_batch=8)
    with pytest.raises(UsageError, match="batch_size must be at most the 121 examples, got 500"):
        measure(vector_net("bn_fc8"), data(), groups="noise", training_batch=500)


_ON_A_BACKEND = """
import sys
import tracemalloc
import numpy as np
from tests.mechanisms.test_measurements import figures_of_a_backend
np.savez(sys.argv[2], **figures_of_a_backend(np.load(sys.argv[1])))
"""


def figures_of_a_backend(weights):
    """Figures of the same net and data: all that do not depend on the random numbers of dropout."""
    model, (x, y) = image_net("bn_fc8"), images()
    model.set_weights([weights[f"arr_{i}"] for i in range(len(weights.files))])
    figures = measure(model, (x, y), training_batch=8).figures()
    for effect in interventions(model, (x, y), training_batch=8).effects:
        figures |= {f"{effect.name}/{part}": getattr(effect, part) for part in ("accuracy", "loss", "dead")}
    figures["guess"] = initial_guess(model, (x, y)).loss
    figures["change"] = neutralise(model, (x, y))
    figures["neutral"] = initial_guess(model, (x, y)).loss
    dropping = image_net("dropout0.5_bn_fc8", seed=1)
    dropping.set_weights(model.get_weights() + dropping.get_weights()[len(model.get_weights()) :])
    figures["shift"] = variance_shift(dropping, x)["head_bn"].median
    return figures


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_other_backends_measure_the_same(backend, tmp_path):
    np.savez(tmp_path / "weights.npz", *image_net("bn_fc8").get_weights())
    expected = figures_of_a_backend(np.load(tmp_path / "weights.npz"))
    code = [sys.executable, "-c", _ON_A_BACKEND, str(tmp_path / "weights.npz"), str(tmp_path / "out.npz")]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(code, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    other = np.load(tmp_path / "out.npz")
    assert set(other.files) == set(expected) and len(expected) > 70
    for name, value in expected.items():
        tolerance = 0.2 if name == "shift" else 5e-3
        np.testing.assert_allclose(other[name], value, rtol=tolerance, atol=1e-4, err_msg=name)


def test_memory_does_not_grow_with_the_examples():
    """Of ten times as many examples, one batch and the same matrices are held; mates stop at their number."""
    model = vector_net("bn_fc8")
    peaks = []
    for number in (3, 30):
        parts = [data(500, seed=seed) for seed in range(10)]
        split = Split(model)

        def stream(parts=parts, number=number):
            return (parts[i % 10] for i in range(number))

        options = {"groups": "noise,gap,guess,scale,calibration,inputs,rank,collapse", "draws": 2}
        measure(split, parts[0], stream(), training_batch=8, **options)  # traced before it is measured
        tracemalloc.start()
        measure(split, stream(), stream(), training_batch=8, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    mates = POOL * 2 * 10 * 8  # bytes of the sample of mates, at most
    assert peaks[1] < 1.3 * peaks[0] + mates
