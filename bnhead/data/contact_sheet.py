"""A sheet of sample pictures: some training images of each class, or with their numbers."""

import math
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from bnhead.errors import DataError
from bnhead.texts import first_line, plotted

if TYPE_CHECKING:
    from bnhead.data.sources import DataSet

CLASSES, COLUMNS = 12, 8


def write(data: "DataSet", path: str | pathlib.Path) -> None:
    """Writes the sheet as an image file, PNG unless the name's ending says otherwise.

    A row for each of the first 12 classes with its first 8 training images; for numbers 24 images.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(data)
    figure = Figure(figsize=(COLUMNS + 1.5, 1.15 * len(rows) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{plotted(data.name)}: {data.shape[0]} x {data.shape[1]} x {data.shape[2]}")
    cells = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for axes, (name, indices, titles) in zip(cells, rows, strict=True):
        images = data.train.take(indices)
        images = images.images if hasattr(images, "images") else images.decoded().images
        for axis in axes:
            axis.set_axis_off()
        for axis, image, title in zip(axes, images, titles, strict=False):
            axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, "gray", vmin=0, vmax=255)
            axis.set_title(plotted(title), fontsize=8)
        axes[0].text(-0.15, 0.5, plotted(name), transform=axes[0].transAxes, ha="right", va="center")
    try:
        figure.savefig(path, format=pathlib.Path(path).suffix.removeprefix(".") or "png", dpi=100)
    except (OSError, ValueError) as error:
        raise DataError(f"sheet {path} cannot be written: {first_line(error)}") from error


def _rows(data: "DataSet") -> list[tuple[str, np.ndarray, list[str]]]:
    """Name, ascending indices and titles of each row."""
    labels = next(data.train.labels_in_batches())
    if data.classes:
        found = [np.flatnonzero(labels == k)[:COLUMNS] for k in range(min(CLASSES, len(data.classes)))]
        return [
            (name, own, [""] * len(own)) for name, own in zip(data.classes, found, strict=False) if len(own)
        ]
    shown = np.arange(min(3 * COLUMNS, len(labels)))
    parts = np.array_split(shown, math.ceil(len(shown) / COLUMNS))
    return [("", own, [", ".join(f"{x:.4g}" for x in labels[i]) for i in own]) for own in parts]
