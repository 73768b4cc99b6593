import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex

from bnhead.census import axes

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    pyplot.close("all")


def shown(ax):
    """Colour of each cell of the picture on the axes, as `#rrggbb`."""
    (image,) = ax.get_images()
    return [[to_hex(color) for color in row] for row in image.cmap(image.norm(image.get_array()))]


def test_new_axes_or_those_of_the_caller():
    _, (left, right) = pyplot.subplots(1, 2)
    assert axes.plot_activity(np.array([0, 0.5]), right) is right and not left.patches
    assert axes.plot_activity(np.array([0, 0.5])).figure is not right.figure


def test_the_raster_shows_the_dead_in_red_and_the_unknown_in_grey():
    ax = axes.plot_raster([np.array([0.5, 1]), np.array([0, 0.1]), np.full(2, np.nan)], [1, 2, 3])
    assert [row.index(axes.DEAD) if axes.DEAD in row else None for row in shown(ax)] == [1, None]
    assert [row[2] for row in shown(ax)] == [axes.UNKNOWN] * 2


def test_the_raster_is_sorted_by_first_death_then_by_last_activity():
    table = [
        [0.2, 0.2, 0.2],  # never dead, seldom active
        [0.9, 0.9, 0.9],  # never dead, often active
        [0.5, 0.5, 0.0],  # dead at the third count
        [0.5, 0.0, 0.5],  # dead at the second, active at the third
        [0.5, 0.0, 0.0],  # dead from the second on
        [0.0, 0.0, 0.0],  # never active
    ]
    assert axes.raster_order(np.array(table)).tolist() == [5, 4, 3, 2, 1, 0]


def test_the_histogram_has_a_separate_bar_for_the_dead():
    ax = axes.plot_activity(np.array([0, 0, 0.01, 0.5, 1]))
    assert [text.get_text() for text in ax.texts] == ["2 dead"]
    heights = {to_hex(bar.get_facecolor()): 0 for bar in ax.patches}
    for bar in ax.patches:
        heights[to_hex(bar.get_facecolor())] += bar.get_height()
    assert heights.pop(axes.DEAD) == 2 and list(heights.values()) == [3]


def test_the_class_map_takes_names_and_classes_without_inputs():
    activity = np.array([[0.1, 0, 0.9], [np.nan] * 3, [0.8, 0, 0]])
    ax = axes.plot_classes(activity, ["cat", "none", "hare"], title="fc")
    # unit 2 answers the first class most, unit 0 the last; unit 1 is dead
    assert [[color == axes.DEAD for color in row] for row in shown(ax)][::2] == [
        [False, False, True],
        [True, False, True],
    ]
    assert set(shown(ax)[1]) == {axes.UNKNOWN}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "none", "hare"]


def test_the_codeath_map_omits_units_that_never_change():
    phi = np.eye(6)
    phi[[2, 5]] = phi[:, [2, 5]] = np.nan
    ax = axes.plot_codeath(phi)
    assert ax.get_images()[0].get_array().shape == (4, 4)
    assert ax.get_xlabel().startswith("4 of 6 units")
    assert shown(axes.plot_codeath(np.full((3, 3), np.nan))) == [[axes.UNKNOWN]]


def ends(dead, always_on, silent):
    return {"dataset": dead, "always_on": always_on, "per_input": silent}


def heights(ax, color):
    """Left edge's layer -> bottom and top of its bar in a colour."""
    bars = [bar for bar in ax.patches if to_hex(bar.get_facecolor()) == color]
    return {round(b.get_x() + 0.42): tuple(sorted((b.get_y(), b.get_y() + b.get_height()))) for b in bars}


def test_both_ends_of_each_layer_meet_their_shares():
    layers = {"first": ends(0.25, 0.5, 0.4), "$last$": {}, "none": ends(0, 0, 0.5)}
    ax = axes.plot_ends(layers)
    assert heights(ax, axes.DEAD) == {0: (0, 0.25)} and heights(ax, axes.ALWAYS_ON) == {0: (0.5, 1)}
    assert heights(ax, axes.UNKNOWN) == {1: (0, 1)}
    (lines,) = ax.collections
    assert [segment[:, 1].tolist() for segment in lines.get_segments()] == [[0.4, 0.4], [0.5, 0.5]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["first", r"\$last\$", "none"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(axes._LEGEND)
    assert all(bar.get_linewidth() > 0.5 for bar in ax.patches if to_hex(bar.get_facecolor()) == axes.DEAD)


def test_many_layers_have_numbers_and_a_wider_picture():
    many = {f"layer{number}": ends(0.1, 0.1, 0.5) for number in range(150)}
    ax = axes.plot_ends(many)
    ax.figure.draw_without_rendering()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert len(labels) <= 13 and "1" in labels and not any("layer" in label for label in labels)
    assert axes.ends_size(list(many))[0] > 2 * axes.ends_size(["fc"])[0]
    assert axes.ends_size(["a" * 28])[1] > axes.ends_size(["a"])[1]


def test_many_epochs_and_classes_get_few_labels():
    raster = axes.plot_raster([np.linspace(0, 1, 9)] * 300, range(300))
    assert len(raster.get_xticks()) <= 12
    classes = axes.plot_classes(np.random.default_rng(0).random((200, 5)))
    assert len(classes.get_yticks()) <= 40 and classes.figure.get_figheight() == 8
