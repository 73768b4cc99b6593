"""The command `bnhead heads`: known heads or given ones, a few lines each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bnhead import texts
from bnhead.cli.flags import Command
from bnhead.errors import UsageError
from bnhead.heads.grammar import parse
from bnhead.heads.presets import PRESETS
from bnhead.heads.tokens import TOKENS


@dataclass(frozen=True)
class Listing:
    """Which heads to list, and for which shapes."""

    heads: tuple = field(
        default=(),
        metadata={"help": "Texts or names of heads. Default: every known head.", "metavar": "[HEAD ...]"},
    )
    features: str = field(
        default="8x8x64",
        metadata={"help": "Shape of the features: height x width x channels, or channels alone."},
    )
    outputs: int = field(default=10, metadata={"help": "Number of outputs."})
    fc_units: int = field(default=256, metadata={"help": "Units of an fc or dense without a number."})

    def __post_init__(self):
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*x[1-9]\d*)?", self.features):
            raise UsageError(f"features must be like 8x8x64 or 64, got {self.features!r}")
        for name in ("outputs", "fc_units"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """(height, width, channels) or (channels,)."""
        return tuple(map(int, self.features.split("x")))


COMMAND = Command(
    "bnhead heads",
    Listing,
    "Lists the known heads: text, diagram with the placement of batch norms, parameters, source. With HEADs, "
    "lists those alone.",
    "Exit status: 0 ok, 2 usage.",
    positional="heads",
    examples=(
        ("", "Every known head."),
        ("bn_fc fastai --features=2048", "Two heads on a vector of 2,048 features."),
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, list_heads)


def list_heads(settings: Listing) -> int:
    """Prints the heads, an entry each, and the command that trains with one."""
    entries = [entry(head, settings) for head in settings.heads or PRESETS]
    if not settings.heads:
        tokens = " ".join(token.example for token in TOKENS.values())
        entries.append(texts.wrapped(f"tokens, joined by _ to any other head: {tokens}", hanging=2))
    example = next(iter(settings.heads), "fastai")
    print("\n\n".join([*entries, f"next  bnhead train --head={example}"]))
    return 0


def entry(head: str, settings: Listing) -> str:
    """The lines on one head, a preset's name or a text."""
    parsed = parse(head)
    shape = settings.feature_shape
    lines = [head, f"  --head={parsed.text}"] if head in PRESETS else [parsed.text]
    try:
        diagram = parsed.describe(shape, settings.outputs, fc_units=settings.fc_units)
        lines.append(texts.wrapped(diagram, indent=2, hanging=4))
        parameters = parsed.parameters(shape, settings.outputs, fc_units=settings.fc_units)
        lines.append(f"  {parameters:,} parameters")
    except UsageError:
        if head not in PRESETS:
            raise
        lines.append(f"  cannot read features of shape {settings.features}")
    if head in PRESETS:
        lines += [texts.wrapped(text, indent=2) for text in (PRESETS[head].source, PRESETS[head].note)]
    return "\n".join(lines)
