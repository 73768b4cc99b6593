import io
import re

import matplotlib
import matplotlib.image
import numpy as np

from bnhead.census import axes, plots
from bnhead.census.census import Census
from bnhead.census.changes import History
from tests.census.batches import counts_of_batch


def pixels(png):
    """`(height, width, 3)` in [0, 1]."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def test_a_picture_is_twice_as_large_as_shown_and_has_the_ink_of_its_theme():
    pictures = {theme: pixels(activity_png(theme)) for theme in ("light", "dark")}
    width, height = axes.size_of("activity")
    assert pictures["light"].shape == (round(220 * height), round(220 * width), 3)
    assert pictures["light"].mean() > 0.8 > 0.3 > pictures["dark"].mean()
    assert matplotlib.rcParams["text.color"] == "black", "the user's settings stay"


def activity_png(theme):
    activity = np.linspace(0, 1, 9)
    return plots.as_png(lambda ax: axes.plot_activity(activity, ax), axes.size_of("activity"), theme)


def test_equal_counts_give_equal_bytes():
    assert activity_png("light") == activity_png("light")


def test_an_svg_is_an_element_of_a_page_in_its_ink():
    svg = plots.as_svg(lambda ax: axes.plot_activity(np.linspace(0, 1, 9), ax), axes.size_of("activity"))
    assert (
        svg.startswith("<svg ") and svg.endswith("</svg>") and "xmlns" not in svg and "<metadata" not in svg
    )
    assert "currentColor" in svg and ">units</text>" in svg and "<style" not in svg
    assert "activity of the units" not in svg
    assert not re.search(r'<g id="', svg)


def batch_counts():
    return counts_of_batch(np.array([1, 0, 1]), np.array([3, 1]), np.array([3, 0]))


def test_a_layer_has_the_plots_that_its_counts_allow():
    counts, history = batch_counts(), History()
    assert list(plots.layer_plots("fc", counts)) == ["activity"]
    counts.class_inputs, counts.class_active = np.array([2, 1]), np.array([[2, 0], [1, 1]])
    counts.together = np.array([[3, 1], [1, 1]])
    assert list(plots.layer_plots("fc", counts)) == ["activity", "classes"]  # one unit alone changes
    counts.active, counts.together = np.array([2, 1]), np.array([[2, 1], [1, 1]])
    history.add(1, counts)
    assert list(plots.layer_plots("fc", counts, history)) == ["activity", "classes", "codeath"]
    history.add(2, counts)
    assert list(plots.layer_plots("fc", counts, history)) == ["raster", "activity", "classes", "codeath"]
    counts.nonfinite = 1
    assert list(plots.layer_plots("fc", counts, history)) == ["raster"]


def test_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = plots.TensorBoardWriter(str(tmp_path))
    writer.write_figures({"dead/fc/dataset": 0.25, "dead/fc/births": float("nan")}, 3)
    writer.write_plots(Census({"fc": batch_counts()}), {}, 3)
    writer.write_plots(Census({"fc": batch_counts(), "late": batch_counts()}), {}, 4)
    writer.write_text("note", "revived", 3)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    plotted = {"plots/fc/activity", "plots/late/activity", "plots/ends"}
    assert set(events.Tags()["tensors"]) == {"dead/fc/dataset", "note", *plotted}
    assert [event.step for event in events.Tensors("plots/ends")] == [4]  # one layer alone says nothing
    description = events.SummaryMetadata("dead/fc/dataset").summary_description
    assert description == "share of units that are dead: silent on every input counted"
    event = events.Tensors("plots/fc/activity")[0]
    width, height, png = event.tensor_proto.string_val
    assert event.step == 3 and png[1:4] == b"PNG" and int(width) > 300 and int(height) > 200
