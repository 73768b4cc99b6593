"""The command `bnhead heads`: the known heads, or those that are named, drawn in a line each."""

import re
from collections.abc import Sequence

from bnhead.cli import flags
from bnhead.errors import UsageError
from bnhead.heads.grammar import parse
from bnhead.heads.presets import PRESETS

_USAGE = """usage: bnhead heads [HEAD ...] [--features=8x8x64] [--outputs=10] [--fc_units=256]

Lists the heads that have a name: text, diagram with the placement of batch norms, parameters, source. With
HEADs, texts or names, those alone.

  --features=8x8x64   shape of the features: height x width x channels, or channels alone
  --outputs=10        number of outputs
  --fc_units=256      units of an fc or dense that names none
"""
_FLAGS = {"features": "8x8x64", "outputs": "10", "fc_units": "256"}


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if flags.asks_for_help(arguments):
        return flags.told(_USAGE)
    return flags.reported("bnhead heads", _list, arguments)


def _list(arguments: Sequence[str]) -> int:
    given, heads = flags.split(arguments, _FLAGS)
    settings = {**_FLAGS, **given}
    features = _sizes("features", settings["features"])
    (outputs,), (units,) = (_sizes(name, settings[name], 1) for name in ("outputs", "fc_units"))
    print("\n\n".join(entry(head, features, outputs, units) for head in heads or PRESETS))
    return 0


def entry(head: str, features: Sequence[int], outputs: int, fc_units: int) -> str:
    """What is to be said of one head, a few lines.

    Args:
        head: a preset's name or a text.
        features: shape of the features.
        outputs: number of outputs.
        fc_units: units of an `fc` or `dense` that names none.
    """
    parsed = parse(head)
    lines = [head, f"  --head={parsed.text}"] if head in PRESETS else [parsed.text]
    try:
        lines.append(f"  {parsed.describe(features, outputs, fc_units=fc_units)}")
        lines.append(f"  {parsed.parameters(features, outputs, fc_units=fc_units):,} parameters")
    except UsageError:
        if head not in PRESETS:
            raise
        lines.append(f"  cannot stand on features of {'x'.join(map(str, features))}")
    if head in PRESETS:
        lines += [f"  {PRESETS[head].source}", f"  {PRESETS[head].note}"]
    return "\n".join(lines)


def _sizes(name: str, value: str, most: int = 3) -> tuple[int, ...]:
    sizes = value.split("x")
    if not all(re.fullmatch(r"[1-9]\d*", size) for size in sizes) or len(sizes) not in (1, most):
        raise UsageError(f"{name} must be like {_FLAGS[name]}, got {value!r}")
    return tuple(map(int, sizes))
