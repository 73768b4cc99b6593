import numpy as np

from bnhead.census.board import Board, draw
from bnhead.census.changes import History
from bnhead.census.counts import Census, Counts


def counts():
    return Counts.of_batch(np.array([1, 0, 1]), np.array([3, 1]), np.array([3, 0]))


def test_pictures_are_those_that_can_be_drawn():
    plain = counts()
    assert list(draw("fc", plain)) == ["activity"]
    plain.class_inputs, plain.class_active = np.array([2, 1]), np.array([[2, 0], [1, 1]])
    plain.together = np.array([[3, 1], [1, 1]])
    assert list(draw("fc", plain)) == ["activity", "classes"]  # one unit alone changes
    plain.active, plain.together = np.array([2, 1]), np.array([[2, 1], [1, 1]])
    history = History()
    history.add(1, plain.active, 3)
    assert list(draw("fc", plain, history)) == ["activity", "classes", "codeath"]
    history.add(2, plain.active, 3)
    assert list(draw("fc", plain, history)) == ["raster", "activity", "classes", "codeath"]
    plain.nonfinite = 1
    assert list(draw("fc", plain, history)) == ["raster"]


def test_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(str(tmp_path))
    board.scalars({"dead/fc/dataset": 0.25}, 3)
    board.pictures(Census({"fc": counts()}), {}, 3)
    board.text("note", "revived", 3)
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["tensors"]) == {"dead/fc/dataset", "dead/fc/activity", "note"}
    described = events.SummaryMetadata("dead/fc/dataset").summary_description
    assert described == "share of units that are dead: silent on every input counted"
    (event,) = events.Tensors("dead/fc/activity")
    width, height, png = event.tensor_proto.string_val
    assert event.step == 3 and png[1:4] == b"PNG" and int(width) > 300 and int(height) > 200
