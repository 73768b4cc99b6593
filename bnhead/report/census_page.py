"""The HTML page: one file that shows everything and loads nothing."""

import base64
from collections.abc import Sequence

import jinja2

from bnhead import texts
from bnhead.census.counts import Census
from bnhead.census.plots import layer_plots
from bnhead.report.census_tables import columns, rows

_CAPTIONS = {
    "raster": "Units over epochs",
    "activity": "Activity of the units",
    "classes": "Activity by class",
    "codeath": "Which units are silent together",
}


def page(census: Census, *, title: str, about: dict[str, str], classes: Sequence[str] = ()) -> str:
    """HTML, light or dark as the reader's system is, with every picture inside.

    Args:
        census: what was counted.
        title: name of the model; like every name it is escaped.
        about: rows of the table on top.
        classes: names of the classes.
    """
    pictures = {
        name: {
            _CAPTIONS[kind]: base64.b64encode(png).decode()
            for kind, png in layer_plots(name, counts, classes=tuple(classes), theme="page").items()
        }
        for name, counts in census.layers.items()
    }
    loader = jinja2.PackageLoader("bnhead.report", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=texts.shown
    )
    template = environment.get_template("census.html")
    return template.render(
        title=title, about=about, columns=columns(census), rows=rows(census), pictures=pictures
    )
