import io

import matplotlib.image
import numpy as np
import pytest

from bnhead.census import plots
from bnhead.census.changes import History
from bnhead.census.counts import Census
from tests.census.batches import counts_of_batch


def pixels(png):
    """`(height, width, 3)` in [0, 1]."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def share_of(image, colour):
    target = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return (np.abs(image - target).max(-1) < 0.01).mean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_raster_shows_the_dead_in_red_and_the_unknown_in_grey(theme):
    activity = [np.linspace(0.1, 1, 20), np.linspace(0.1, 1, 20)]
    alive = pixels(plots.raster(activity, [1, 2], "fc", theme))
    activity[1] = np.where(np.arange(20) < 10, 0, activity[1])
    dying = pixels(plots.raster(activity, [1, 2], "fc", theme))
    assert share_of(alive, plots.DEAD) < 0.001 < 0.08 < share_of(dying, plots.DEAD)
    unknown = pixels(plots.raster([activity[0], np.full(20, np.nan)], [1, 2], "fc", theme))
    assert share_of(unknown, plots.UNKNOWN) > 0.15 > 0.001 > share_of(dying, plots.UNKNOWN)


def test_the_histogram_has_a_separate_bar_for_the_dead():
    alive = np.full(50, 0.5)
    none = share_of(pixels(plots.activity_histogram(alive)), plots.DEAD)
    half = share_of(pixels(plots.activity_histogram(np.where(np.arange(50) < 25, 0, alive))), plots.DEAD)
    assert none < 0.001 < 0.01 < half


def test_the_class_map_takes_names_and_classes_without_inputs():
    activity = np.random.default_rng(0).random((4, 30))
    activity[2] = np.nan
    activity[3, :15] = 0
    image = pixels(plots.class_map(activity, ["cat", "dog", "none", "hare"]))
    assert share_of(image, plots.UNKNOWN) > 0.05 and share_of(image, plots.DEAD) > 0.03


def test_the_codeath_map_omits_units_that_never_change():
    phi = np.eye(6)
    phi[[2, 5]] = phi[:, [2, 5]] = np.nan
    image = pixels(plots.codeath_map(phi))
    assert share_of(image, plots.UNKNOWN) < 0.01
    assert share_of(pixels(plots.codeath_map(np.full((3, 3), np.nan))), plots.UNKNOWN) > 0.1


def test_equal_counts_give_equal_bytes():
    activity = [np.linspace(0, 1, 9)] * 3
    assert plots.raster(activity, [1, 2, 3]) == plots.raster(activity, [1, 2, 3])


def test_many_epochs_and_classes_get_few_labels():
    plots.raster([np.linspace(0, 1, 9)] * 300, range(300))
    plots.class_map(np.random.default_rng(0).random((200, 5)))


def test_names_that_look_like_formulas_are_names():
    activity = np.random.default_rng(0).random((2, 6))
    assert plots.class_map(activity, ["$\\frac$", "a$b$"], title="$x^$").startswith(b"\x89PNG")


def batch_counts():
    return counts_of_batch(np.array([1, 0, 1]), np.array([3, 1]), np.array([3, 0]))


def test_a_layer_has_the_plots_that_its_counts_allow():
    counts, history = batch_counts(), History()
    assert list(plots.layer_plots("fc", counts)) == ["activity"]
    counts.class_inputs, counts.class_active = np.array([2, 1]), np.array([[2, 0], [1, 1]])
    counts.together = np.array([[3, 1], [1, 1]])
    assert list(plots.layer_plots("fc", counts)) == ["activity", "classes"]  # one unit alone changes
    counts.active, counts.together = np.array([2, 1]), np.array([[2, 1], [1, 1]])
    history.add(1, counts.active, 3)
    assert list(plots.layer_plots("fc", counts, history)) == ["activity", "classes", "codeath"]
    history.add(2, counts.active, 3)
    assert list(plots.layer_plots("fc", counts, history)) == ["raster", "activity", "classes", "codeath"]
    counts.nonfinite = 1
    assert list(plots.layer_plots("fc", counts, history)) == ["raster"]


def test_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = plots.TensorBoardWriter(str(tmp_path))
    writer.write_figures({"dead/fc/dataset": 0.25}, 3)
    writer.write_plots(Census({"fc": batch_counts()}), {}, 3)
    writer.write_text("note", "revived", 3)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["tensors"]) == {"dead/fc/dataset", "dead/fc/activity", "note"}
    description = events.SummaryMetadata("dead/fc/dataset").summary_description
    assert description == "share of units that are dead: silent on every input counted"
    (event,) = events.Tensors("dead/fc/activity")
    width, height, png = event.tensor_proto.string_val
    assert event.step == 3 and png[1:4] == b"PNG" and int(width) > 300 and int(height) > 200
