import pytest

from bnhead.census import keys

pytestmark = pytest.mark.quick


def test_layers_with_slashes_go_into_a_key_and_come_back():
    for layer in ("fc", "encoder/relu", "a/b/c#2"):
        name = keys.key(layer, "per_input")
        assert keys.is_key(name) and keys.parts(name) == (layer, "per_input")


def test_a_key_without_its_group():
    assert keys.short("dead/encoder/relu/per_input") == "encoder/relu/per_input"
    assert keys.short_parts("dead/relu/per_input") == ("dead/relu", "per_input")


def test_the_figures_of_a_layer():
    values = {"loss": 1, "dead/fc/per_input": 2, "dead/b/fc/per_input": 3, "dead/fc/dataset": 4}
    assert keys.figures(values, "fc") == {"per_input": 2, "dataset": 4}


def test_layers_of_names():
    names = ["loss", "dead/fc/per_input", "dead/encoder/relu/per_input", "dead/fc/dataset", "dead/only"]
    assert keys.layers_of(names) == ["fc", "encoder/relu"]
    assert keys.layers_of(names, "dataset") == ["fc"]
