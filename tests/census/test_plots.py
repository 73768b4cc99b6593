import io

import matplotlib.image
import numpy as np
import pytest

from bnhead.census import plots


def pixels(png):
    """`(height, width, 3)` in [0, 1]."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def share_of(image, colour):
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return (np.abs(image - wanted).max(-1) < 0.01).mean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_raster_shows_the_dead_in_red_and_the_unknown_in_grey(theme):
    activity = [np.linspace(0.1, 1, 20), np.linspace(0.1, 1, 20)]
    alive = pixels(plots.raster(activity, [1, 2], "fc", theme))
    activity[1] = np.where(np.arange(20) < 10, 0, activity[1])
    dying = pixels(plots.raster(activity, [1, 2], "fc", theme))
    assert share_of(alive, plots.DEAD) < 0.001 < 0.08 < share_of(dying, plots.DEAD)
    unknown = pixels(plots.raster([activity[0], np.full(20, np.nan)], [1, 2], "fc", theme))
    assert share_of(unknown, plots.UNKNOWN) > 0.15 > 0.001 > share_of(dying, plots.UNKNOWN)


def test_the_histogram_has_a_bar_of_its_own_for_the_dead():
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


def test_units_that_never_change_are_left_out_of_the_codeath_map():
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
