"""Copies the counts of a census to docs/nets/: `python docs/keep_census.py census/cifar10-mobilenet`.

The copy is the `census.json` of `bnhead inspect`, compressed, without the counts by class, and without the
figures, which follow from the counts. Numbers have six digits. It has neither weights nor images.
"""

import gzip
import json
import pathlib
import sys
from typing import Any

NETS = pathlib.Path(__file__).resolve().parent / "nets"


def keep(directory: pathlib.Path) -> pathlib.Path:
    """Writes docs/nets/<net>.json.gz. Equal counts give equal bytes."""
    content = json.loads((directory / "census.json").read_text())
    for name, layer in content["layers"].items():
        counts = {key: value for key, value in layer["counts"].items() if not key.startswith("class_")}
        content["layers"][name] = {"counts": _rounded(counts)}
    path = NETS / f"{content['inspected']['net']}.json.gz"
    NETS.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
    return path


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(keep(pathlib.Path(argument)))
