import pytest

from bnhead.studies.pool import Job, attempt, take
from bnhead.training.config import TrainConfig

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("last", "busy", "expected"),
    [
        ("fc", (), "fc 0"),  # the cell it trained last
        ("ln_fc", (), "bn_fc 0"),  # of which no job waits: the cell with the most waiting jobs
        (None, ("bn_fc",), "fc 0"),  # 2 for one worker against 3 for two
        (None, ("bn_fc", "fc", "fc"), "bn_fc 0"),  # 3 for two against 2 for three
        (None, ("bn_fc", "bn_fc", "fc"), "bn_fc 0"),  # 3 for three, 2 for two: the one that waits longest
    ],
)
def test_a_worker_stays_with_a_cell_and_else_helps_the_largest_queue(last, busy, expected):
    kinds = ("bn_fc", "fc", "bn_fc", "bn_fc", "fc")
    waiting = [
        Job(f"{kind} {kinds[:index].count(kind)}", kind, TrainConfig(), dict)
        for index, kind in enumerate(kinds)
    ]
    assert take(waiting, last, busy).id == expected
    assert len(waiting) == 4 and expected not in [job.id for job in waiting]


def test_messages_are_one_line():
    def breaks(config, tell):
        raise ValueError("one\n  two")

    what, detail = attempt(Job("x", "", TrainConfig(), breaks), print)
    assert (what, detail["error"], detail["message"]) == ("failed", "ValueError", "one two")
