import keras
import numpy as np
import pytest

from bnhead.mechanisms.noise import batch_noise, predicted_variance
from bnhead.mechanisms.population import reference
from bnhead.mechanisms.split import Split, cross_entropy
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net


def by_brute_force(model, x, y, batch, draws, seed=0):
    """Each example in batches of random others, through the model itself in training mode."""
    rng, logits = np.random.default_rng(seed), []
    run = keras.ops.convert_to_tensor
    for i in range(len(x)):
        others = np.delete(np.arange(len(x)), i)
        of_example = []
        for _ in range(draws):
            chosen = rng.choice(others, batch - 1, replace=False)
            with keras.StatelessScope():
                of_example.append(numpy(model(run(x[np.append(i, chosen)]), training=True))[0])
        logits.append(of_example)
    logits = np.array(logits)
    split = Split(model)
    features = split.features(x)
    values = features["features"].astype("float64")
    answers = split.outputs(
        features, split.affine(values.mean(0), values.var(0), (values.mean(0), values.var(0)))
    )
    flipped = (logits.argmax(-1) != answers["logits"].argmax(-1)[:, None]).mean(1)
    return np.sqrt(logits.var(1, ddof=1).mean()), flipped


@pytest.mark.parametrize("head", ["bn_fc8", "fc8_out_bn"])
def test_monte_carlo_equals_brute_force(head):
    model, (x, y) = vector_net(head), data(40)
    sd, flipped = by_brute_force(model, x, y, 8, 40)
    noise = batch_noise(model, (x, y), training_batch=8, draws=400)
    assert noise.logit_sd == pytest.approx(sd, rel=0.06)
    assert noise.flipped == pytest.approx(flipped.mean(), abs=0.02)
    for c in range(4):
        assert noise.flipped_by_class[c] == pytest.approx(flipped[y == c].mean(), abs=0.06)
    assert noise.class_examples.tolist() == np.bincount(y).tolist()


def test_batch_noise_layer_has_the_noise_of_its_batch():
    """`BatchNoise` adds in training what a norm that is the identity in evaluation would."""
    model, (x, y) = vector_net("noise_fc8"), data(40)
    known = reference(model, x)
    layer = model.get_layer("head_noise")
    for variable, value in zip((layer.moving_mean, layer.moving_variance), known.population, strict=True):
        variable.assign(value)
    layer.step.assign(100)
    sd, _ = by_brute_force(model, x, y, 8, 40)
    assert batch_noise(model, x, training_batch=8, draws=400).logit_sd == pytest.approx(sd, rel=0.06)


@pytest.mark.parametrize("token", ["bn", "center", "scale", "bn-beta-gamma"])
def test_the_formula_holds_for_features_that_are_often_active(token):
    rng = np.random.default_rng(0)
    x = rng.gamma(4.0, size=(3000, 12)).astype("float32")
    inputs = keras.Input((12,))
    from bnhead import heads

    model = heads.attach(f"{token}_out", inputs, inputs, 4, name="net", seed=0)
    noise = batch_noise(model, x[:400], x, training_batch=64, draws=100)
    assert noise.sd == pytest.approx(noise.predicted_sd, rel=0.06)
    np.testing.assert_allclose(noise.variance, noise.predicted, rtol=0.4)


def test_the_formula_of_a_normal_unit():
    """Simulated: batches of 200 with one member of a given value."""
    rng = np.random.default_rng(0)
    for z in (0.0, 1.5, -2.5):
        batches = rng.normal(size=(40_000, 200))
        values = (z - batches.mean(1)) / batches.std(1)
        assert values.var() == pytest.approx(predicted_variance(z, 0, 3, 200), rel=0.06)


def test_rarely_active_units():
    """Active on 1 % of inputs: in a batch of 16 alone, |z| = sqrt(15), where the population says 10."""
    rng = np.random.default_rng(0)
    x = rng.gamma(4.0, size=(4000, 4)).astype("float32")
    x[:, 0] = np.where(np.arange(4000) % 100 == 0, rng.uniform(5, 6, 4000), 0)
    inputs = keras.Input((4,))
    norm = keras.layers.BatchNormalization(epsilon=1e-5, name="bn")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(norm))
    noise = batch_noise(model, x, training_batch=16, draws=20)
    assert noise.rare.tolist() == [True, False, False, False]
    expected = 0.01 * (np.sqrt(99) - np.sqrt(15)) ** 2
    assert noise.distance[0] == pytest.approx(expected, rel=0.15)
    assert noise.rare_distance > 1.5 * noise.usual_distance
    assert noise.predicted[0] > 50 * noise.variance[0]  # the formula does not hold
    assert batch_noise(model, x, training_batch=400, draws=4).rare.tolist() == [False] * 4


@pytest.mark.parametrize("head", ["fbn_fc8", "bn_fc8", "gbn8_fc8", "fc8"])
def test_kinds_of_norms(head):
    model, (x, y) = vector_net(head), data()
    noise = batch_noise(model, (x, y), training_batch=32, draws=8)
    assert bool(noise.sd > 0.05) == bool(noise.flipped > 0) == (head != "fbn_fc8")
    assert noise.batch_size == (8 if "gbn" in head else 32)


def test_batch_renorm_has_less_noise_within_wide_bounds():
    model, (x, _) = vector_net("brn_fc8"), data()
    norm, known = model.get_layer("head_brn"), reference(model, x)
    norm.moving_mean.assign(known.population[0])
    norm.moving_variance.assign(known.population[1])
    first = batch_noise(model, x, training_batch=16)
    norm.step.assign(10**6)
    wide = batch_noise(model, x, training_batch=16)
    assert wide.logit_sd < 0.3 * first.logit_sd


def test_noise_of_a_norm_on_maps_falls_with_the_batch():
    model, (x, y) = image_net("bn_gap_fc8"), images()
    small, large = (batch_noise(model, (x, y), training_batch=b) for b in (4, 16))
    assert small.sd > 1.5 * large.sd and np.isnan(small.predicted_sd)


def test_thirds_of_the_classes():
    model, (x, y) = vector_net("bn_fc8"), data()
    noise = batch_noise(model, (x, y), training_batch=8)
    counts = np.bincount(y)
    assert noise.flipped_third(rarest=True) == noise.flipped_by_class[counts.argmin()]
    assert noise.flipped_third(rarest=False) == noise.flipped_by_class[counts.argmax()]
    assert np.isnan(batch_noise(model, x, training_batch=8).flipped_third(rarest=True))


def test_accuracy_and_loss_with_a_batchs_statistics():
    """With all other examples as mates there is one batch: all examples and the example itself again."""
    model, (x, y) = vector_net("bn_fc8"), data(40)
    noise = batch_noise(model, (x, y), training_batch=41, draws=2)
    split = Split(model)
    features = split.features(x)
    logits = []
    for i in range(40):
        values = features["features"][[*range(40), i]].astype("float64")
        one = {"features": features["features"][i : i + 1]}
        logits.append(split.outputs(one, split.affine(values.mean(0), values.var(0)))["logits"][0])
    logits = np.array(logits)
    assert noise.correct == pytest.approx((logits.argmax(1) == y).mean())
    assert noise.loss == pytest.approx(cross_entropy(logits, y).mean(), rel=1e-4)
    assert noise.logit_sd < 1e-3


def test_figures_repeat_and_do_not_change_the_model():
    model, (x, y) = vector_net("bn_dropout0.5_fc8"), data()
    before = [np.array(w) for w in model.get_weights()]
    first, second = (batch_noise(model, (x, y), training_batch=8) for _ in range(2))
    assert first.logit_sd == second.logit_sd
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
