import keras
import pytest
from keras import layers

from bnhead.census.sites import inventory_of
from bnhead.graph.outline import steps_of


def readers(steps, name):
    """Names of the steps that `name` reads."""
    (inputs,) = (step.inputs for step in steps if step.name == name)
    return [steps[index].name for index in inputs]


def residual(name="net"):
    image = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(3, 3, padding="same", name="stem")(image)
    branch = layers.Conv2D(3, 3, padding="same", name="conv")(layers.ReLU(name="relu")(stem))
    return keras.Model(image, layers.ReLU(name="late")(layers.Add(name="add")([stem, branch])), name=name)


def test_a_residual_net_has_its_branches():
    steps = steps_of(residual())
    assert [step.name for step in steps] == ["image", "stem", "relu", "conv", "add", "late"]
    assert [step.kind for step in steps][-2:] == ["Add", "ReLU"]
    assert readers(steps, "image") == [] and readers(steps, "relu") == ["stem"]
    assert readers(steps, "add") == ["stem", "conv"] and readers(steps, "late") == ["add"]


def test_nested_models_are_taken_apart():
    image = keras.Input((8, 8, 3), name="input")
    inner = residual("inner")
    x = layers.Dense(2, name="out")(layers.Flatten(name="flat")(inner(inner(image))))
    steps = steps_of(keras.Model(image, x))
    assert readers(steps, "inner/add") == ["inner/stem", "inner/conv"]
    assert readers(steps, "inner/stem#2") == ["inner/late"] and readers(steps, "flat") == ["inner/late#2"]


def test_a_model_in_a_model_of_several_inputs_is_taken_apart():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    inner = keras.Model({"a": a, "b": b}, layers.Concatenate(name="both")([b, a]), name="inner")
    first, second = keras.Input((2,), name="first"), keras.Input((3,), name="second")
    steps = steps_of(keras.Model([first, second], inner({"a": first, "b": second})))
    assert readers(steps, "inner/both") == ["first", "second"]


def test_a_sequential_model_and_functions_are_steps_and_a_subclassed_model_has_none():
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(4, "relu", name="fc")])
    assert [(step.name, step.inputs) for step in steps_of(model)] == [("x", ()), ("fc", (0,))]
    image = keras.Input((3,), name="x")
    function = steps_of(keras.Model(image, keras.ops.relu(image) + 1.0))
    assert [step.kind for step in function] == ["Input", "Relu", "Add"]

    class Mine(keras.Model):
        def call(self, x):
            return x

    assert steps_of(Mine()) == []


@pytest.mark.parametrize("shared", [1, 3])
def test_the_names_are_those_of_the_census(shared):
    image = keras.Input((8,), name="image")
    relu, x = layers.ReLU(name="relu"), image
    for number in range(shared):
        x = relu(layers.Dense(4 + number, name=f"fc{number}")(x))
    model = keras.Model(image, x)
    names = [step.name for step in steps_of(model)]
    for site in inventory_of(model).activations:
        units = {"relu": 4, "relu#2": 5, "relu#3": 6}[site.name]
        assert site.units == units and names[names.index(site.name) - 1] == f"fc{units - 4}"
