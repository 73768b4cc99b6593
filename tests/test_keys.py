from bnhead import keys


def test_layers_with_slashes_go_into_a_key_and_come_back():
    for layer in ("fc", "encoder/relu", "a/b/c#2"):
        name = keys.key(layer, "per_input")
        assert keys.is_key(name) and keys.parts(name) == (layer, "per_input")


def test_layers_of_names():
    names = ["loss", "dead/fc/per_input", "dead/encoder/relu/per_input", "dead/fc/dataset", "dead/only"]
    assert keys.layers(names) == ["fc", "encoder/relu"]
    assert keys.layers(names, "dataset") == ["fc"]
