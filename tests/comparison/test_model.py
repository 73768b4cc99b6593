import keras
import pytest

from bnhead.comparison.data import ComparedData
from bnhead.comparison.model import built_model, model_sha256, unnumbered
from bnhead.errors import UsageError
from tests.comparison.nets import DATA, build


def test_the_name_of_a_layer_does_not_make_another_model():
    assert model_sha256(build("fc", 0)) == model_sha256(build("fc", 1))
    assert model_sha256(build("fc", 0)) != model_sha256(build("bn_fc", 0))
    assert model_sha256(build("fc", 0, initial=1)) == model_sha256(build("fc", 0, initial=2))
    other = build("fc", 0)
    other.compile("sgd", other.loss)
    assert model_sha256(build("fc", 0)) != model_sha256(other)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            lambda seed: keras.Sequential([keras.Input((5,))]),
            "for 'fc' it returned a model that is not compiled",
        ),
        (lambda seed: None, "returned NoneType"),
    ],
)
def test_builders_return_compiled_models(builder, message):
    with pytest.raises(UsageError, match=message):
        built_model("fc", builder, 0, ComparedData.of(DATA, 16))


def test_numbers_of_unnamed_layers():
    names = ("dense_12", "block_3/relu_1#2", "stage2_block1")
    assert [unnumbered(name) for name in names] == ["dense", "block/relu#2", "stage2_block1"]
