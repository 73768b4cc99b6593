import pytest

from bnhead.runs import schema

pytestmark = pytest.mark.quick

SHAPE = {
    "name": str,
    "rate?": float,
    "pairs": [{"ends": [(float, None), (float, None)]}],
    "test_*": (float, None),
    "flag?": bool,
}
GOOD = {"name": "a", "rate": 1, "pairs": [{"ends": [0.5, None]}], "test_loss": None, "other": [{}], "x": True}


def test_what_is_of_the_shape():
    schema.check_shape(GOOD, SHAPE)
    schema.check_shape({"name": "", "pairs": [], "flag": False}, SHAPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name must be of type str, got None"),
        ({"rate": True}, "rate must be of type float, got True"),
        ({"flag": 1}, "flag must be of type bool, got 1"),
        ({"pairs": {}}, "pairs must be of type list, got {}"),
        ({"pairs": [{"ends": [1]}]}, "pairs[0]: ends must have 2 entries, got 1"),
        ({"pairs": [{"ends": [1, "2"]}]}, "pairs[0]: ends[1] must be of type float or null, got '2'"),
        ({"pairs": [{}]}, "pairs[0] has no 'ends'"),
        ({"test_x": []}, "test_x must be of type float or null, got []"),
        ({"name": 10**90}, "name must be of type str, got " + str(10**90)[:60]),
    ],
)
def test_what_is_not_is_told_with_its_place(change, message):
    with pytest.raises(ValueError, match=r"^") as raised:
        schema.check_shape({**GOOD, **change}, SHAPE)
    assert str(raised.value) == message


def test_a_missing_entry_of_the_whole():
    with pytest.raises(ValueError, match=r"^it has no 'status'$"):
        schema.check_shape({}, schema.RESULT)


def test_every_file_of_a_run_that_is_json_has_a_shape():
    assert {"config.json", "environment.json", "status.json", "result.json"} < schema.OF.keys()
