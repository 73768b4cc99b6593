import keras
import numpy as np
import pytest
from keras import layers

from bnhead import DeadUnits
from bnhead.census import count
from bnhead.census.revival import optimizer_slots, revive
from bnhead.census.sites import inventory_of
from bnhead.models import resnet8


def net(optimizer="adam"):
    """conv -> norm -> relu -> pool -> concat(with itself pooled by maximum) -> fc -> out."""
    keras.utils.set_random_seed(1)  # with this seed no unit is dead, whose bias would be 0 already
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    pooled = layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(7, "relu", name="fc")(layers.Concatenate()(pooled))
    model = keras.Model(inputs, layers.Dense(2, name="out")(layers.Dropout(0.5)(x)))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6, 6, 3)).astype("float32"), rng.integers(0, 2, 64)
    model.fit(x, y, epochs=2, verbose=0)
    return model, x


def site_of(model, name):
    return inventory_of(model).select([name])[0]


def state(model):
    variables = {v.path: v for v in (*model.variables, *model.optimizer.variables)}
    return {path: np.array(v) for path, v in variables.items()}


def changed(initial, final):
    """path -> which entries have changed."""
    different = {path: initial[path] != final[path] for path in initial}
    return {path: entries for path, entries in different.items() if entries.any()}


def test_exactly_the_entries_of_the_units_change():
    model, _ = net()
    initial = state(model)
    dormant = np.array([0, 1, 0, 0, 1, 0, 0], bool)
    revival = revive(model, site_of(model, "fc"), dormant, seed=3)
    final = state(model)
    difference = changed(initial, final)
    weights = {path for path in difference if not path.startswith("adam")}
    assert weights == {"fc/kernel", "fc/bias", "out/kernel"}
    for path, entries in difference.items():
        units = (
            entries.any(0)
            if "fc" in path and entries.ndim == 2
            else entries
            if entries.ndim == 1
            else entries.any(1)
        )
        assert units.tolist() == dormant.tolist(), path
    assert (final["out/kernel"][dormant] == 0).all() and (final["fc/bias"][dormant] == 0).all()
    slots = [path for path in difference if path.startswith("adam")]
    assert len(slots) == revival.slots == 6  # two for each of three variables
    for path in slots:
        assert (final[path][difference[path]] == 0).all()
    assert revival.units == [1, 4] and revival.outgoing == ["out/kernel"] and not revival.skipped
    assert "fc: 2 dormant units revived; fc/kernel, fc/bias redrawn, out/kernel set to 0" in str(revival)


def test_the_new_weights_are_drawn_by_the_layers_initializer_and_the_seed():
    dormant = np.arange(7) < 4
    kernels = []
    for seed in (3, 3, 4):
        model, _ = net("sgd")
        revive(model, site_of(model, "fc"), dormant, seed)
        kernels.append(np.array(model.get_layer("fc").kernel)[:, :4])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()
    limit = np.sqrt(6 / (10 + 7))  # Glorot's
    assert np.abs(kernels[0]).max() <= limit and np.abs(kernels[0]).max() > limit / 2


def test_a_convolution_through_norm_pooling_and_concatenation():
    model, x = net()
    norm = model.get_layer("norm")
    norm.beta.assign([0, -50, 0, 0, -50])
    dormant = np.array([0, 1, 0, 0, 1], bool)
    logits = model.predict(x, verbose=0)
    initial = state(model)
    revival = revive(model, site_of(model, "relu"), dormant, seed=0)
    final = state(model)
    assert revival.incoming[0] == "conv/kernel" and revival.outgoing == ["fc/kernel"]
    assert (np.array(norm.gamma)[dormant] == 1).all() and (np.array(norm.beta)[dormant] == 0).all()
    assert (np.array(norm.moving_mean)[dormant] == 0).all()
    different = changed(initial, final)
    assert different["conv/kernel"].any((0, 1, 2)).tolist() == dormant.tolist()
    assert different["fc/kernel"].any(1).tolist() == [*dormant, *dormant]
    # dead units contributed nothing; the revived ones contribute nothing, since their outgoing weights are 0
    np.testing.assert_allclose(model.predict(x, verbose=0), logits, atol=1e-6)
    relu = keras.Model(model.inputs, model.get_layer("relu").output).predict(x, verbose=0)
    assert (relu[..., dormant] > 0).any()


def test_units_after_a_residual_sum_are_skipped():
    model = resnet8((8, 8, 3), "fc", 4, fc_units=6, seed=0)
    initial = model.get_weights()
    site = site_of(model, "stage3_block1_relu2")
    revival = revive(model, site, np.ones(site.units, bool), seed=0)
    assert "'stage3_block1_add', before them, mixes units" in revival.skipped
    assert "64 dormant units not revived: " in str(revival)
    for expected, actual in zip(initial, model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, actual)
    site = site_of(model, "stage3_block1_relu1")
    assert not revive(model, site, np.ones(site.units, bool), seed=0).skipped


def test_flatten_and_nested_models():
    inside = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(3, 1, activation="relu", name="map"),
            layers.Flatten(),
            layers.Dense(5, name="d"),
        ],
        name="inside",
    )
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Dense(2)(inside(inputs)))
    revival = revive(model, site_of(model, "inside/map"), np.array([False, True, False]), seed=0)
    assert not revival.skipped
    kernel = np.array(inside.get_layer("d").kernel).reshape(16, 3, 5)
    assert (kernel[:, 1] == 0).all() and (kernel[:, [0, 2]] != 0).all()
    inputs = keras.Input((4, 4, 2))
    end = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(3, 1, activation="relu", name="map")], name="end"
    )
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(end(inputs))))
    revival = revive(model, site_of(model, f"{end.name}/map"), np.array([False, True, False]), seed=0)
    assert revival.skipped == "they are an output of their model"


def test_without_dormant_units_nothing_is_revived():
    model, _ = net("sgd")
    assert revive(model, site_of(model, "fc"), np.zeros(7, bool), 0).skipped == "no unit is dormant"


@pytest.mark.parametrize(
    ("optimizer", "number", "initial"),
    [("sgd", 0, 0), ("adam", 2, 0), ("adamw", 2, 0), ("rmsprop", 1, 0), ("adagrad", 1, 0.1), ("lion", 1, 0)],
)
def test_slots_of_optimizers(optimizer, number, initial):
    model, _ = net(optimizer)
    slots = optimizer_slots(model.optimizer, model.get_layer("fc").kernel)
    assert len(slots) == number
    for slot, value in slots:
        assert slot.shape == (10, 7) and value == initial
    assert not optimizer_slots(model.optimizer, model.get_layer("norm").moving_mean)
    assert not optimizer_slots(None, model.get_layer("fc").kernel)


def test_averages_of_weights_are_not_slots():
    model, _ = net(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True))
    assert len(optimizer_slots(model.optimizer, model.get_layer("fc").kernel)) == 1


def test_revived_units_of_consecutive_layers_are_not_connected():
    inputs = keras.Input((12,))
    first, second = layers.Dense(8, "relu", name="first"), layers.Dense(6, "relu", name="second")
    model = keras.Model(inputs, layers.Dense(3)(second(first(inputs))))
    first.bias.assign([-99.0] * 2 + [0.0] * 6)
    second.bias.assign([-99.0] * 3 + [0.0] * 3)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(40, 12)).astype("float32")
    expected = model.predict(x, verbose=0)
    dead_units = DeadUnits(x, ["first", "second"], revive=0.0)
    dead_units.set_model(model)
    dead_units.set_params({"epochs": 9})
    dead_units.on_epoch_end(0, {})
    assert [revival.units for _, revival in dead_units.revivals] == [[0, 1], [0, 1, 2]]
    kernel = np.array(second.kernel)
    assert not kernel[:2].any() and kernel[2:, :3].all()
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize("options", [{}, {"use_ema": True}, {"use_ema": True, "ema_overwrite_frequency": 5}])
def test_averaged_weights_do_not_undo_a_revival(options):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(320, 12)).astype("float32"), rng.integers(0, 4, 320)
    model = keras.Sequential([keras.Input((12,)), layers.Dense(24, "relu", name="fc"), layers.Dense(4)])
    model.get_layer("fc").bias.assign([-100.0] * 6 + [0.0] * 18)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01, **options), loss)
    history = model.fit(x, y, epochs=6, verbose=0, callbacks=[DeadUnits(x, revive=0.0)]).history
    assert history["dead/fc/dataset"][0] == 0.25 and history["dead/fc/dataset"][-1] == 0
    assert count(model, x).figures()["dead/fc/dataset"] == 0


class Mixes(layers.Layer):
    """A user's layer that mixes its channels and has an attribute `activation`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner, self.activation = layers.Dense(8), keras.activations.relu

    def call(self, x):
        return self.activation(self.inner(x))


class ResidualDense(layers.Dense):
    def call(self, x):
        return x + super().call(x)


MIXING = {
    "rnn": lambda: layers.SimpleRNN(8, "relu", return_sequences=True, name="mix"),
    "gru": lambda: layers.GRU(8, return_sequences=True, name="mix"),
    "wrapped": lambda: layers.TimeDistributed(layers.Dense(8, "relu"), name="mix"),
    "own": lambda: Mixes(name="mix"),
    "subclass": lambda: ResidualDense(8, "relu", name="mix"),
}


@pytest.mark.parametrize("name", MIXING)
def test_units_next_to_a_layer_that_mixes_channels_are_skipped(name):
    inputs = keras.Input((4, 8))
    x = layers.Dense(8, "relu", name="fc")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(MIXING[name]()(x)))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    initial = state(model)
    for layer in ("fc", "mix"):
        revival = revive(model, site_of(model, layer), np.arange(8) == 2, seed=0)
        assert "mixes units" in revival.skipped, layer
    assert not changed(initial, state(model))


def test_an_average_that_begins_as_the_weights_does_not_pull_them_back():
    """ScheduleFreeAdamW: with gradients of zero a fresh weight must stay where it was drawn."""
    model, _ = net(keras.optimizers.ScheduleFreeAdamW(0.1, weight_decay=0.0))
    dormant = np.arange(7) == 0
    revive(model, site_of(model, "fc"), dormant, seed=0)
    kernel = model.get_layer("fc").kernel
    fresh = np.array(kernel)[:, 0]
    for _ in range(5):
        zeros = [keras.ops.zeros_like(v) for v in model.trainable_variables]
        model.optimizer.apply(zeros, model.trainable_variables)
    np.testing.assert_allclose(np.array(kernel)[:, 0], fresh, rtol=1e-4)


def test_the_slots_of_optimizers_inside_another_are_reset():
    adam, momentum, plain = (
        keras.optimizers.Adam(),
        keras.optimizers.SGD(momentum=0.9),
        keras.optimizers.SGD(),
    )
    by_layer = {"fc": adam, "conv": momentum}
    several = keras.optimizers.MultiOptimizer(lambda v: by_layer.get(v.path.split("/")[0], plain))
    model, _ = net(several)
    assert len(optimizer_slots(model.optimizer, model.get_layer("fc").kernel)) == 2
    assert len(optimizer_slots(model.optimizer, model.get_layer("conv").kernel)) == 1
    assert not optimizer_slots(model.optimizer, model.get_layer("out").kernel)


def test_adafactors_moments_of_a_unit_are_reset():
    """Per column of the kernel before the unit, and per row of the kernel after it."""
    model, x = net(keras.optimizers.Adafactor(0.01))
    labels = np.zeros(len(x), "int32")
    model.train_on_batch(x, labels)
    optimizer, kernels = model.optimizer, [model.get_layer(name).kernel for name in ("fc", "out")]
    index = [next(i for i, v in enumerate(optimizer._trainable_variables) if v is k) for k in kernels]
    column, row = optimizer._c[index[0]], optimizer._r[index[1]]
    initial = np.array(column), np.array(row)
    revival = revive(model, site_of(model, "fc"), np.arange(7) == 1, seed=3)
    assert np.array(column)[1] == 0 and np.array(row)[1] == 0 and revival.slots == 5
    alive = np.arange(len(initial[0])) != 1
    np.testing.assert_array_equal(np.array(column)[alive], initial[0][alive])
    np.testing.assert_array_equal(np.array(row)[alive], initial[1][alive])
    assert initial[0][1] > 0 or initial[1][1] > 0
