import itertools

import pytest

from bnhead.errors import UsageError
from bnhead.studies import named
from tests.studies.fake import plan_of


def test_widths_double_and_each_has_its_control():
    plan = plan_of("width")
    widths = [one.stratum["fc_units"] for one in plan.comparisons]
    assert len(widths) == 7 and all(b == 2 * a for a, b in itertools.pairwise(widths))
    for one in plan.comparisons:
        assert (one.control, one.treatment) == (
            f"fc at fc_units {one.stratum['fc_units']}",
            f"bn_fc at fc_units {one.stratum['fc_units']}",
        )
    assert plan.settings["weights"] == ""  # from initial weights, unless told otherwise


def test_find_knows_every_module_and_names_the_nearest():
    assert named.NAMES == (
        "batch_size",
        "bn_before_fc",
        "controls",
        "learning_rate",
        "placement",
        "width",
    )
    assert all(named.find(name).question.endswith("?") for name in named.NAMES)
    with pytest.raises(UsageError, match="study 'widht' is not known; did you mean 'width'"):
        named.find("widht")
