"""The table of pre-trained nets in docs/census.md, from the counts in docs/nets/."""

import functools
import gzip
import json
from typing import Any, NamedTuple

import keep_census
import numpy as np

from bnhead.census.census import Census
from bnhead.census.figures import ALWAYS_ON, DEAD, SILENT
from bnhead.census.keys import overall
from bnhead.report.census_files import census_in
from bnhead.report.census_remarks import worst_layers

SHOWN = "mobilenet_v2_finetuned"  # in the gallery


class Net(NamedTuple):
    """A census in docs/nets/: the content of its `census.json`, and its counts."""

    content: dict[str, Any]
    census: Census

    @property
    def command(self) -> str:
        """The command that counted it."""
        inspected = self.content["inspected"]
        pixels = "" if inspected["pixels"] == "auto" else f" --pixels={inspected['pixels']}"
        return f"bnhead inspect {inspected['model']} --dataset={inspected['dataset']}{pixels}"


@functools.cache
def nets() -> dict[str, Net]:
    """Name -> census, in the order of the names."""
    found = {}
    for path in sorted(keep_census.NETS.glob("*.json.gz")):
        content = json.loads(gzip.decompress(path.read_bytes()))
        found[path.name.removesuffix(".json.gz")] = Net(content, census_in(content))
    return found


def table() -> str:
    """A row for each net: its size, the number of inputs, and the shares of all its units."""
    columns = ("net", "layers", "units", "N", DEAD.heading, ALWAYS_ON.heading, SILENT.heading, "most dead")
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 2)}---|"]
    for name, (_, census) in nets().items():
        units = [counts.units for counts in census.layers.values()]
        (inputs,) = {counts.inputs for counts in census.layers.values()}
        shares = census.overall()
        dead = sum(int(counts.dead.sum()) for counts in census.layers.values())
        on = np.average([figures[ALWAYS_ON.name] for figures in census.by_layer().values()], weights=units)
        most = (f"`{layer}` {census.layers[layer].dead.mean():.1%}" for layer in worst_layers(census))
        cells = [
            f"`{name}`",
            f"{len(units)}",
            f"{sum(units):,}",
            f"{inputs:,}",
            f"{dead:,} ({shares[overall(DEAD.name)]:.1%})",
            f"{on:.1%}",
            f"{shares[overall(SILENT.name)]:.1%}",
            ", ".join(most),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    commands = "\n".join(net.command for net in nets().values())
    return "\n".join([*lines, "", "```sh", commands, "```"])
