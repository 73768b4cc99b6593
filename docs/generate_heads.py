"""Writes docs/heads.md and its pictures from the grammar: `python docs/generate_heads.py`.

A test holds the files against what this would write.
"""

import pathlib
import sys

DOCS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from bnhead import heads  # noqa: E402
from bnhead.heads.diagram import svg  # noqa: E402

FEATURES, OUTPUTS = (8, 8, 64), 10  # ResNet-20 on CIFAR-10
PLACEMENTS = {
    "P0": ("bn_gap_fc", "before the pooling, on the feature map"),
    "P1": ("bn_fc", "on the pooled features, before the FC"),
    "P1 without an FC": ("bn_out", "on the pooled features, before the output layer"),
    "P2": ("fc_bn", "between the FC and the output layer"),
    "P3": ("fc_out_bn", "on the logits"),
}
CONTROLS = {
    "fc": "the control: no norm",
    "bn_fc": "all of it: centring, scaling, batch noise, a gain and an offset",
    "bn-beta-gamma_fc": "without the gain and the offset, which the FC behind it could do itself",
    "fbn_fc": "statistics measured once on training data and frozen: an affine start, no batch noise",
    "center_fc": "the subtraction of the mean alone",
    "scale_fc": "the division by the deviation alone",
    "noise_fc": "the batch noise alone, on features that are not normalised",
    "gbn16_fc": "more batch noise: statistics of 16 examples at a time, whatever the batch",
    "brn_fc": "less batch noise: statistics corrected towards the moving averages",
    "ln_fc": "normalised by the example: no batch noise, nothing to average",
    "rms_fc": "the same without the subtraction",
    "gn8_fc": "the same within groups of features",
    "l2_fc": "features of one length",
    "cdropout0.5_fc": "more dropout for rarer classes, for imbalanced data",
}


def page() -> str:
    """The text of docs/heads.md."""
    presets = [
        f"### `{name}`\n\n{_figure(name)}\n\n`--head={heads.canonical(name)}`, "
        f"{heads.parameters(name, FEATURES, OUTPUTS):,} parameters. {preset.note}\n\nSource: {preset.source}."
        for name, preset in heads.PRESETS.items()
    ]
    places = [
        f"| {name} | {text} | `{head}` | {_figure(head)} |" for name, (head, text) in PLACEMENTS.items()
    ]
    controls = [f"| `{head}` | {text} | {_figure(head)} |" for head, text in CONTROLS.items()]
    return "\n".join(
        [
            "# Heads",
            "",
            "Written by `python docs/generate_heads.py`. Pictures and parameters are for features of 8x8x64,",
            "as ResNet-20 has them on CIFAR-10, 10 classes and `--fc_units=256`. Batch norms are orange.",
            "",
            "## Where a batch norm can stand",
            "",
            "| | where | `--head` | |",
            "|---|---|---|---|",
            *places,
            "",
            "## Heads that explain a difference",
            "",
            "Each does only some of what `bn_fc` does.",
            "",
            "| `--head` | what it has | |",
            "|---|---|---|",
            *controls,
            "",
            "## Heads with a name",
            "",
            "`--head=fastai` means the text below it. Their norms have our constants (momentum 0.9, epsilon",
            "1e-5), their Dense layers our initial weights; training is yours.",
            "",
            "\n\n".join(presets),
            "",
        ]
    )


def pictures() -> dict[str, str]:
    """Path under docs/ -> SVG."""
    drawn = [*heads.PRESETS, *(head for head, _ in PLACEMENTS.values()), *CONTROLS]
    return {f"heads/{head}.svg": svg(head, FEATURES, OUTPUTS) for head in dict.fromkeys(drawn)}


def _figure(head: str) -> str:
    return f"![{head}](heads/{head}.svg)"


def main() -> None:
    """Writes the page and the pictures, and removes pictures that no head has any more."""
    (DOCS / "heads").mkdir(exist_ok=True)
    for old in (DOCS / "heads").glob("*.svg"):
        old.unlink()
    for path, content in {"heads.md": page(), **pictures()}.items():
        (DOCS / path).write_text(content)


if __name__ == "__main__":
    main()
