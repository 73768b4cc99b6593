import io

import matplotlib.image
import numpy as np
import pytest

from bnhead.census import pictures


def pixels(png):
    """`(height, width, 3)` in [0, 1]."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def share_of(image, colour):
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return (np.abs(image - wanted).max(-1) < 0.01).mean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_raster_shows_the_dead_in_red_and_the_unknown_in_grey(theme):
    activity = [np.linspace(0.1, 1, 20), np.linspace(0.1, 1, 20)]
    alive = pixels(pictures.raster(activity, [1, 2], "fc", theme))
    activity[1] = np.where(np.arange(20) < 10, 0, activity[1])
    dying = pixels(pictures.raster(activity, [1, 2], "fc", theme))
    assert share_of(alive, pictures.DEAD) < 0.001 < 0.08 < share_of(dying, pictures.DEAD)
    unknown = pixels(pictures.raster([activity[0], np.full(20, np.nan)], [1, 2], "fc", theme))
    assert share_of(unknown, pictures.UNKNOWN) > 0.15 > 0.001 > share_of(dying, pictures.UNKNOWN)


def test_the_histogram_has_a_bar_of_its_own_for_the_dead():
    alive = np.full(50, 0.5)
    none = share_of(pixels(pictures.activity_histogram(alive)), pictures.DEAD)
    half = share_of(
        pixels(pictures.activity_histogram(np.where(np.arange(50) < 25, 0, alive))), pictures.DEAD
    )
    assert none < 0.001 < 0.01 < half


def test_the_class_map_takes_names_and_classes_without_inputs():
    activity = np.random.default_rng(0).random((4, 30))
    activity[2] = np.nan
    activity[3, :15] = 0
    image = pixels(pictures.class_map(activity, ["cat", "dog", "none", "hare"]))
    assert share_of(image, pictures.UNKNOWN) > 0.05 and share_of(image, pictures.DEAD) > 0.03


def test_units_that_never_change_are_left_out_of_the_codeath_map():
    phi = np.eye(6)
    phi[[2, 5]] = phi[:, [2, 5]] = np.nan
    image = pixels(pictures.codeath_map(phi))
    assert share_of(image, pictures.UNKNOWN) < 0.01
    assert share_of(pixels(pictures.codeath_map(np.full((3, 3), np.nan))), pictures.UNKNOWN) > 0.1


def test_equal_counts_give_equal_bytes():
    activity = [np.linspace(0, 1, 9)] * 3
    assert pictures.raster(activity, [1, 2, 3]) == pictures.raster(activity, [1, 2, 3])


def test_many_epochs_and_classes_get_few_labels():
    pictures.raster([np.linspace(0, 1, 9)] * 300, range(300))
    pictures.class_map(np.random.default_rng(0).random((200, 5)))


def test_names_that_look_like_formulas_are_names():
    activity = np.random.default_rng(0).random((2, 6))
    assert pictures.class_map(activity, ["$\\frac$", "a$b$"], title="$x^$").startswith(b"\x89PNG")
