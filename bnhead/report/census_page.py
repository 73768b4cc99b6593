"""The page of a census: one file that contains everything and loads nothing."""

import base64
from collections.abc import Mapping, Sequence

from bnhead.census.counts import Census
from bnhead.census.plots import layer_plots
from bnhead.report.census_tables import layer_rows
from bnhead.report.pages import html_page

_CAPTIONS = {
    "raster": "Units over epochs",
    "activity": "Activity of the units",
    "classes": "Activity by class",
    "codeath": "Which units are silent together",
}


def census_html(census: Census, *, title: str, about: Mapping[str, str], classes: Sequence[str] = ()) -> str:
    """HTML in a light or dark theme, as the reader's system is set, with all pictures inside.

    Args:
        census: the counts.
        title: name of the model. Like every name it is escaped.
        about: rows of the table at the top.
        classes: names of the classes.
    """
    pictures = {
        name: {
            _CAPTIONS[plot]: base64.b64encode(png).decode()
            for plot, png in layer_plots(name, counts, classes=tuple(classes), theme="page").items()
        }
        for name, counts in census.layers.items()
    }
    tables = {"columns": census.table_figures(), "rows": layer_rows(census)}
    return html_page({"title": title, "about": about, "pictures": pictures, **tables}, "census.html")
