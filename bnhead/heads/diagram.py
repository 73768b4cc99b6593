"""A head drawn: boxes from the features to the output, the batch norms in colour with their placement."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from bnhead.heads.grammar import parse

_BOX_HEIGHT, _GAP, _MARGIN, _LETTER = 34, 22, 14, 7.3
_STYLE = (
    "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;text-anchor:middle;fill:#24292f}"
    "rect{fill:#f6f8fa;stroke:#8c959f}path{stroke:#8c959f;fill:none}"
    ".norm rect{fill:#ffd8a8;stroke:#d9480f}.norm text{fill:#5f2000}"
    ".norm .place{fill:#d9480f;font-weight:bold}"
    ".features rect{fill:#d0ebff;stroke:#1971c2}.features text{fill:#0b3d66}"
    "@media(prefers-color-scheme:dark){.norm .place{fill:#ff922b}path{stroke:#adb5bd}}"
)


def svg(text: str, features: Sequence[int] = (8, 8, 64), outputs: int = 10) -> str:
    """The head as an SVG picture, the same bytes for the same head; it needs nothing from elsewhere.

    Args:
        text: the head.
        features: shape of the features, `(height, width, channels)` or `(channels,)`.
        outputs: number of outputs.
    """
    head = parse(text)
    tokens = head.on(features)
    words = ["x".join(map(str, features)), *map(str, tokens)]
    words[-1 - _behind_output(tokens)] += f" {outputs}"
    places = iter(head.placement)
    labels = ["", *(next(places) if t.kind.normalises_batch else "" for t in tokens)]
    x, boxes = _MARGIN, []
    for word, label in zip(words, labels, strict=True):
        width = round(len(word) * _LETTER + 20)
        boxes.append(_box(x, width, word, label, "features" if not boxes else "norm" if label else "step"))
        x += width + _GAP
    size = x - _GAP + _MARGIN, _BOX_HEIGHT + 40
    title = f"<title>{escape(text)}</title><style>{_STYLE}</style>"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" role="img">'
    return "\n".join([opening, title, *boxes, "</svg>", ""])


def _behind_output(tokens) -> int:
    return len(tokens) - 1 - [t.kind.name for t in tokens].index("out")


def _box(x: int, width: int, word: str, label: str, kind: str) -> str:
    middle, top = x + width / 2, 26
    arrow = f'<path d="M{x - _GAP + 2} {top + 17}h{_GAP - 6}m-5 -4l5 4l-5 4"/>' if kind != "features" else ""
    place = f'<text class="place" x="{middle:g}" y="{top - 9}">{label}</text>' if label else ""
    return (
        f'<g class="{kind}">{arrow}{place}'
        f'<rect x="{x}" y="{top}" width="{width}" height="{_BOX_HEIGHT}" rx="6"/>'
        f'<text x="{middle:g}" y="{top + 22}">{escape(word)}</text></g>'
    )
