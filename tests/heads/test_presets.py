import pytest

from bnhead import heads

pytestmark = pytest.mark.quick

FEATURES, OUTPUTS = (7, 7, 64), 10

# Weights of each head, counted by hand from the layers of its source: a batch norm of c channels has 4c with
# gain and offset, 3c with one of them, 2c with neither (moving averages included).
BY_HAND = {
    "plain": 64 * 10 + 10,
    "fastai": 4 * 128 + 128 * 512 + 4 * 512 + 512 * 10,
    "bnneck": 3 * 64 + 64 * 10,
    "arcface": 4 * 64 + (7 * 7 * 64 * 512 + 512) + 3 * 512 + 512 * 10,
    "mae_probe": 2 * 64 + 64 * 10 + 10,
    "norm_mlp": 2 * 64 + (64 * 256 + 256) + (256 * 10 + 10),
    "norm_linear": 4 * 64 + 64 * 10 + 10,
    "model_garden": 4 * 64 + 64 * 10 + 10,
    "final_bn": 4 * 64 + 64 * 10 + 10,
    "final_bn_logits": 64 * 10 + 10 + 4 * 10,
}
PLACES = {
    "plain": (),
    "fastai": ("P1", "P2"),
    "bnneck": ("P1",),
    "arcface": ("P0", "P2"),
    "mae_probe": ("P1",),
    "norm_mlp": (),
    "norm_linear": ("P1",),
    "model_garden": ("P0",),
    "final_bn": ("P1",),
    "final_bn_logits": ("P3",),
}


@pytest.mark.parametrize("name", heads.PRESETS)
def test_parameters_and_placement_are_the_sources(name):
    assert heads.parse(name).parameters(FEATURES, OUTPUTS) == BY_HAND[name]
    assert heads.placement(name) == PLACES[name]


@pytest.mark.parametrize("name", heads.PRESETS)
def test_a_name_stands_for_its_text_and_has_a_source(name):
    preset = heads.PRESETS[name]
    assert heads.canonical(name) == heads.canonical(preset.text)
    assert len(preset.source) > 10 and preset.note.endswith(".")


def test_no_name_is_a_text():
    for name in heads.PRESETS:
        with pytest.raises(heads.HeadError):
            heads.canonical(f"gap_{name}")
