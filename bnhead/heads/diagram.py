"""A picture of a head: boxes from the features to the output, batch norms in colour with their placement."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from bnhead.heads.grammar import Head, parse

_BOX_HEIGHT, _GAP, _MARGIN, _LETTER = 34, 22, 14, 7.3
_STYLE = (
    "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;text-anchor:middle;fill:#24292f}"
    "rect{fill:#f6f8fa;stroke:#8c959f}path{stroke:#8c959f;fill:none}"
    ".norm rect{fill:#ffd8a8;stroke:#d9480f}.norm text{fill:#5f2000}"
    ".norm .place{fill:#d9480f;font-weight:bold}"
    ".features rect{fill:#d0ebff;stroke:#1971c2}.features text{fill:#0b3d66}"
    "@media(prefers-color-scheme:dark){.norm .place{fill:#ff922b}path{stroke:#adb5bd}}"
)


def svg(head: str | Head, features: Sequence[int] = (8, 8, 64), outputs: int = 10) -> str:
    """The head as an SVG picture without external references; the same bytes for the same head.

    Args:
        head: a text, which becomes the title, or a parsed head.
        features: shape of the features, `(height, width, channels)` or `(channels,)`.
        outputs: number of outputs.
    """
    parsed = parse(head)
    title = parsed.text if head is parsed else head
    tokens, placements = parsed.on(features), iter(parsed.placement)
    boxes = [("features", "x".join(map(str, features)), "")]
    for t in tokens:
        word = f"{t} {outputs}" if t.name == "out" else str(t)
        boxes.append(("norm", word, next(placements)) if t.type.normalises_batch else ("step", word, ""))
    x, top, groups = _MARGIN, 26, []
    for css_class, word, label in boxes:
        width = round(len(word) * _LETTER + 20)
        middle = x + width / 2
        arrow = f'<path d="M{x - _GAP + 2} {top + 17}h{_GAP - 6}m-5 -4l5 4l-5 4"/>' if groups else ""
        caption = f'<text class="place" x="{middle:g}" y="{top - 9}">{label}</text>' if label else ""
        groups.append(
            f'<g class="{css_class}">{arrow}{caption}'
            f'<rect x="{x}" y="{top}" width="{width}" height="{_BOX_HEIGHT}" rx="6"/>'
            f'<text x="{middle:g}" y="{top + 22}">{escape(word)}</text></g>'
        )
        x += width + _GAP
    size = f'width="{x - _GAP + _MARGIN}" height="{_BOX_HEIGHT + 40}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    heading = f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    return "\n".join([opening, heading, *groups, "</svg>", ""])
