"""Writes docs/heads.md and its pictures, which a test keeps current: `python docs/generate_heads.py`."""

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
    "bn_fc": "everything: centring, scaling, batch noise, a gain and an offset",
    "bn-beta-gamma_fc": "without the gain and the offset, which the FC can learn itself",
    "fbn_fc": "statistics measured once on training data and frozen: an affine start, no batch noise",
    "center_fc": "the subtraction of the mean alone",
    "scale_fc": "the division by the deviation alone",
    "noise_fc": "the batch noise alone, on features that are not normalised",
    "gbn16_fc": "more batch noise: statistics of 16 examples at a time, for any batch size",
    "brn_fc": "less batch noise: statistics corrected towards the moving averages",
    "ln_fc": "each example normalised separately: no batch noise, no moving averages",
    "rms_fc": "the same without the subtraction",
    "gn8_fc": "the same within groups of features",
    "l2_fc": "features scaled to the same length",
    "cdropout0.5_fc": "more dropout for rarer classes, for imbalanced data",
}


def page() -> str:
    """The text of docs/heads.md."""
    presets = []
    for name, preset in heads.PRESETS.items():
        head = heads.parse(name)
        presets += [
            f"### `{name}`\n\n{_image(name)}\n\n`--head={head.text}`, "
            f"{head.parameters(FEATURES, OUTPUTS):,} parameters. {preset.note}\n\nSource: {preset.source}."
        ]
    placements = [
        f"| {name} | {text} | `{head}` | {_image(head)} |" for name, (head, text) in PLACEMENTS.items()
    ]
    controls = [f"| `{head}` | {text} | {_image(head)} |" for head, text in CONTROLS.items()]
    return "\n".join(
        [
            "# Heads",
            "",
            "Written by `python docs/generate_heads.py`. Pictures and parameters are for features of 8x8x64,",
            "as ResNet-20 has them on CIFAR-10, 10 classes and `--fc_units=256`. Batch norms are orange.",
            "",
            "## Positions of a batch norm",
            "",
            "| | position | `--head` | |",
            "|---|---|---|---|",
            *placements,
            "",
            "## Heads that explain a difference",
            "",
            "Each does only a part of what `bn_fc` does.",
            "",
            "| `--head` | effect | |",
            "|---|---|---|",
            *controls,
            "",
            "## Published heads",
            "",
            "`--head=fastai` stands for the text below its picture. The norms have our constants (momentum",
            "0.9, epsilon 1e-5), the Dense layers our initial weights. Training is not part of a head.",
            "",
            "\n\n".join(presets),
            "",
        ]
    )


def images() -> dict[str, str]:
    """Path under docs/ -> SVG."""
    texts = [*heads.PRESETS, *(head for head, _ in PLACEMENTS.values()), *CONTROLS]
    return {f"heads/{text}.svg": svg(text, FEATURES, OUTPUTS) for text in dict.fromkeys(texts)}


def _image(head: str) -> str:
    return f"![{head}](heads/{head}.svg)"


def main() -> None:
    """Writes the page and the pictures, and removes pictures of heads that the page no longer shows."""
    (DOCS / "heads").mkdir(exist_ok=True)
    for picture in (DOCS / "heads").glob("*.svg"):
        picture.unlink()
    for path, content in {"heads.md": page(), **images()}.items():
        (DOCS / path).write_text(content)


if __name__ == "__main__":
    main()
