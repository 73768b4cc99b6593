"""Counts in TensorBoard: figures as scalars, pictures as images."""

from collections.abc import Mapping

import numpy as np

from bnhead.census import keys, plots
from bnhead.census.changes import History
from bnhead.census.counts import Census
from bnhead.census.figures import meaning_of


class Board:
    """Writes into one TensorBoard directory.

    Args:
        log_dir: the directory; TensorBoard shows it as a run of its own.
    """

    def __init__(self, log_dir: str):
        import tensorflow as tf  # TensorBoard's file format, on whatever backend Keras runs

        self._tf = tf
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Writes figures under their keys, with their meanings."""
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                self._tf.summary.scalar(name, value, description=meaning_of(name))
        self._writer.flush()

    def pictures(self, census: Census, histories: Mapping[str, History], step: int) -> None:
        """Draws every layer that is known: raster, activity, and by class and co-death where counted."""
        with self._writer.as_default(step=step):
            for name, counts in census.layers.items():
                for kind, png in draw(name, counts, histories.get(name)).items():
                    image = self._tf.io.decode_png(png, channels=3)[None]
                    self._tf.summary.image(keys.key(name, kind), image)
        self._writer.flush()

    def text(self, name: str, text: str, step: int) -> None:
        """Writes a text."""
        with self._writer.as_default(step=step):
            self._tf.summary.text(name, text)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


def draw(
    name: str, counts, history: History | None = None, classes: tuple[str, ...] = (), theme: str = "light"
) -> dict[str, bytes]:
    """All pictures of one layer: kind -> PNG. Those of an unknown count are left out."""
    drawn = {}
    if history is not None and len(history.epochs) > 1:
        drawn["raster"] = plots.raster(history.activity, history.epochs, name, theme)
    if counts.unknown:
        return drawn
    drawn["activity"] = plots.activity_histogram(counts.active / counts.inputs, name, theme)
    if counts.class_active is not None:
        drawn["classes"] = plots.class_map(counts.class_activity, classes, name, theme)
    if counts.phi is not None and np.isfinite(np.diagonal(counts.phi)).sum() > 1:
        drawn["codeath"] = plots.codeath_map(counts.phi, name, theme)
    return drawn
