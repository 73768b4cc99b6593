import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.layers import recompute_batch_stats
from bnhead.mechanisms.effects import interventions
from bnhead.mechanisms.figures import INTERVENTIONS
from bnhead.mechanisms.split import cross_entropy
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net


def figures_of(model, x, y, logits=None):
    """Accuracy, loss and dead share of `head_fc` by the model itself."""
    logits = numpy(model(x, training=False)) if logits is None else logits
    hidden = numpy(keras.Model(model.input, model.get_layer("head_fc").output)(x))
    return (logits.argmax(1) == y).mean(), cross_entropy(logits, y).mean(), (hidden == 0).all(0).mean()


def require_same(effect, expected):
    np.testing.assert_allclose([effect.accuracy, effect.loss, effect.dead], expected, rtol=2e-3, atol=1e-6)


def test_each_intervention_is_the_change_of_the_model_that_it_says():
    model, (x, y) = image_net("bn_fc8"), images()
    effects = interventions(model, (x, y), training_batch=8, batch_size=25)
    assert [effect.name for effect in effects.effects] == list(INTERVENTIONS)
    assert (effects.layer, effects.units, effects.examples) == ("head_bn", "head_fc", 60)
    none = figures_of(model, x, y)
    require_same(effects["none"], none)
    require_same(effects["folded"], none)
    assert effects["none"].flipped == effects["folded"].flipped == 0
    norm = model.get_layer("head_bn")
    gamma, beta, mean, variance = (
        numpy(v) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    deviation = np.sqrt(variance + norm.epsilon)
    norm.beta.assign(beta + gamma * mean / deviation)
    require_same(effects["no_centring"], figures_of(model, x, y))
    norm.beta.assign(beta)
    norm.gamma.assign(gamma * deviation)
    require_same(effects["no_scaling"], figures_of(model, x, y))
    norm.gamma.assign(gamma)
    logits = numpy(model(x))
    shifted = logits - logits.mean(0) + np.log(np.bincount(y) / 60)
    require_same(effects["neutral_bias"], figures_of(model, x, y, shifted))
    assert effects["neutral_bias"].flipped == (shifted.argmax(1) != logits.argmax(1)).mean() > 0
    recompute_batch_stats(model, x, "head")
    require_same(effects["population"], figures_of(model, x, y))


def test_a_batch_of_all_examples_has_the_populations_statistics():
    model, (x, y) = vector_net("bn_fc8"), data()
    effects = interventions(model, (x, y), training_batch=121)
    assert effects["batch"].loss == pytest.approx(effects["population"].loss, rel=0.02)
    small = interventions(model, (x, y), training_batch=4)
    assert abs(small["batch"].loss - small["population"].loss) > 0.02


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("fc8", {"none", "batch", "neutral_bias"}),
        ("center_fc8", set(INTERVENTIONS) - {"no_scaling"}),
        ("scale_fc8", set(INTERVENTIONS) - {"no_centring"}),
        ("fbn_fc8", set(INTERVENTIONS) - {"population", "own_share"}),
        ("fc8_bn", set(INTERVENTIONS)),
    ],
)
def test_what_a_model_allows(head, names):
    effects = interventions(vector_net(head), data(), training_batch=8)
    assert {effect.name for effect in effects.effects} == names
    assert effects["none"].flipped == 0 and (effects.units == "") is (head == "fc8_bn")


def test_the_model_does_not_change_and_the_table_prints():
    model, (x, y) = vector_net("bn_dropout0.5_fc8"), data()
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    effects = interventions(model, (x, y), training_batch=8)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))
    text = str(effects)
    assert text.splitlines()[0] == "interventions at head_bn on 120 examples; dead units of head_fc"
    assert all(name in text for name in INTERVENTIONS) and max(map(len, text.splitlines())) <= 100
    assert "<table" in effects._repr_html_()


def test_labels_of_classes_are_needed():
    with pytest.raises(UsageError, match="interventions need labels of classes"):
        interventions(vector_net("bn_fc8"), data()[0], training_batch=8)
