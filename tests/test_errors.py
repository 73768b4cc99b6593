import pytest

from bnhead.errors import nearest

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("word", "hint"),
    [("vgg61", "; did you mean 'VGG16'?"), ("ABOUT", "; did you mean 'about'?"), ("zzz", ""), ("", "")],
)
def test_nearest_ignores_case_and_stays_silent_where_nothing_is_near(word, hint):
    assert nearest(word, ["VGG16", "about", "Xception"]) == hint
