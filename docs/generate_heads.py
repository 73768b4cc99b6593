"""Tables and pictures of docs/heads.md, from the grammar and the presets."""

from bnhead import heads
from bnhead.heads.diagram import svg

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
    "fcenter_fc": "the subtraction of a mean measured once: no batch noise, no gradient through the mean",
    "fscale_fc": "the division by a deviation measured once",
    "noise_fc": "the batch noise alone, on features that are not normalised",
    "gbn16_fc": "more batch noise: statistics of 16 examples at a time, for any batch size",
    "brn_fc": "less batch noise: statistics corrected towards the moving averages",
    "ln_fc": "each example normalised separately: no batch noise, no moving averages",
    "rms_fc": "the same without the subtraction",
    "gn8_fc": "the same within groups of features",
    "l2_fc": "features scaled to the same length",
    "cdropout0.5_fc": "more dropout for rarer classes, for imbalanced data",
}


def placements() -> str:
    """The positions that a final batch norm can have."""
    rows = [f"| {name} | {text} | `{head}` | {_image(head)} |" for name, (head, text) in PLACEMENTS.items()]
    return "\n".join(["| | position | `--head` | |", "|---|---|---|---|", *rows])


def controls() -> str:
    """The heads that do a part of what `bn_fc` does."""
    rows = [f"| `{head}` | {text} | {_image(head)} |" for head, text in CONTROLS.items()]
    return "\n".join(["| `--head` | effect | |", "|---|---|---|", *rows])


def presets() -> str:
    """A section for each published head: picture, text, parameters, note and source."""
    sections = []
    for name, preset in heads.PRESETS.items():
        head = heads.parse(name)
        sections.append(
            f"### `{name}`\n\n{_image(name)}\n\n`--head={head.text}`, "
            f"{head.parameters(FEATURES, OUTPUTS):,} parameters. {preset.note}\n\nSource: {preset.source}."
        )
    return "\n\n".join(sections)


def images() -> dict[str, str]:
    """Path in the site -> SVG."""
    texts = [*heads.PRESETS, *(head for head, _ in PLACEMENTS.values()), *CONTROLS]
    return {f"heads/{text}.svg": svg(text, FEATURES, OUTPUTS) for text in dict.fromkeys(texts)}


def _image(head: str) -> str:
    return f"![{head}](heads/{head}.svg)"
