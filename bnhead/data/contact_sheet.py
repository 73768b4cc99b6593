"""A sheet of sample pictures: some training images of each class, or with their numbers."""

import math
import pathlib

import numpy as np

from bnhead.data.dataset import DataSet
from bnhead.errors import DataError
from bnhead.texts import first_line, plotted

CLASSES, COLUMNS = 12, 8


def write_sheet(data: DataSet, path: str | pathlib.Path) -> None:
    """Writes the sheet as an image file, PNG unless the name has another ending.

    A row for each of the first 12 classes with its first 8 training images; for numbers 24 images.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels, rows = data.train.labels, []
    if data.classes:
        for k, name in enumerate(data.classes[:CLASSES]):
            indices = np.flatnonzero(labels == k)[:COLUMNS]
            if len(indices):
                rows.append((name, indices, [""] * len(indices)))
    else:
        examples = np.arange(min(3 * COLUMNS, len(labels)))
        for indices in np.array_split(examples, math.ceil(len(examples) / COLUMNS)):
            rows.append(("", indices, [", ".join(f"{x:.4g}" for x in labels[i]) for i in indices]))
    figure = Figure(figsize=(COLUMNS + 1.5, 1.15 * len(rows) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{plotted(data.name)}: {data.shape[0]} x {data.shape[1]} x {data.shape[2]}")
    cells = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for axes, (name, indices, titles) in zip(cells, rows, strict=True):
        images = data.train.take(indices).decoded().images
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
