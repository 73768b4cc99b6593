"""The answer on the first page, from studies in docs/answer/: `python docs/generate_answer.py`.

Writes what stands between two marks in README.md, such as `<!-- answer -->` and `<!-- end of answer -->`, and
the picture docs/answer/answer.svg. A test compares both with the result files.
"""

import json
import pathlib
import re
import sys
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bnhead.cli.study import format_verdict  # noqa: E402
from bnhead.report import charts  # noqa: E402
from bnhead.studies import wording  # noqa: E402
from bnhead.studies.commands import study_command  # noqa: E402
from bnhead.studies.directory import StudyFiles, read_plan, read_study  # noqa: E402
from bnhead.studies.plan import Plan  # noqa: E402

ANSWER = ROOT / "docs" / "answer"
PICTURE = ANSWER / "answer.svg"
_WIDTH, _LEFT, _MIDDLE, _ROW, _TOP = 860, 150, 560, 92, 58
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}"
    ".quiet{fill:#57606a;font-size:12px}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".band{fill:#eaeef2}.zero{stroke:#8c959f}.grid{stroke:#d0d7de}"
    ".fc{fill:#57606a;stroke:#57606a}.bn{fill:#d9480f;stroke:#d9480f}.interval{stroke-width:3}"
    ".seed{fill-opacity:.55;stroke:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.band{fill:#262c36}"
    ".zero{stroke:#6e7681}.grid{stroke:#3d444d}.fc{fill:#9198a1;stroke:#9198a1}"
    ".bn{fill:#ff922b;stroke:#ff922b}}"
)


class Shown(NamedTuple):
    """A comparison on the first page.

    Attributes:
        folder: of the study, in docs/answer/.
        control: a cell with a fully connected layer.
        treatment: the same with a batch norm before that layer.
        backbone: how the backbone is named; "" for its `--backbone`.
        note: another setting that matters.
    """

    folder: str
    control: str = "fc"
    treatment: str = "bn_fc"
    backbone: str = ""
    note: str = ""


SHOWN = (
    Shown("digits"),
    Shown("summaries/width", "fc at fc_units 2048", "bn_fc at fc_units 2048", note="2,048 units"),
    Shown("summaries/placement_fashion", note="10 epochs"),
    Shown("summaries/causes_cifar10", note="4 epochs"),
    Shown("summaries/placement_rotation"),
    Shown("summaries/placement_frozen_resnet18", backbone="frozen ResNet-18"),
)


class Row(NamedTuple):
    """A row of the answer.

    Attributes:
        setting: data set and backbone.
        score: the comparison's row of `verdict.json` on test accuracy or R^2.
        dead: that on the share of dead units of the head's layer, in [0, 1].
    """

    setting: str
    score: dict
    dead: dict


def studies() -> dict[str, StudyFiles]:
    """Name in docs/answer/ -> the study, in the order of the names."""
    return {
        path.parent.name: read_study(path.parent) for path in sorted(ANSWER.glob("*/plan.json"), reverse=True)
    }


def answers() -> dict[str, StudyFiles]:
    """Those of them that answer the question of the first page; the gallery shows all."""
    return {name: study for name, study in studies().items() if study.plan.study == "bn_before_fc"}


def command(plan: Plan) -> str:
    """The command that makes a study, in its default directory."""
    text = study_command(plan, "").removesuffix(" --dir=")
    return re.sub(r" '--question=[^']*'", "", text)  # changes no run


def rows() -> list[Row]:
    """A row for each comparison that is shown."""
    of_all = []
    for shown in SHOWN:
        plan = read_plan(ANSWER / shown.folder)
        verdict = json.loads((ANSWER / shown.folder / "verdict.json").read_text())
        comparison = next(
            row
            for row in verdict["comparisons"]
            if (row["control"], row["treatment"]) == (shown.control, shown.treatment)
        )
        by_outcome = {row["outcome"]: row for row in (comparison, *comparison["secondary"])}
        parts = (plan.settings["dataset"], shown.backbone or plan.settings["backbone"], shown.note)
        score = by_outcome.get("accuracy") or by_outcome["r2"]
        of_all.append(Row(", ".join(filter(None, parts)), score, by_outcome["dead_share"]))
    return of_all


def table() -> str:
    """The answer as a table: accuracy, verdict and dead units of each comparison."""
    lines = [
        "| data set, backbone | seeds | test accuracy in points, `bn_fc` less `fc` | verdict "
        "| dead units, `fc` | dead units, `bn_fc` |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows():
        name = row.score["outcome"]
        mean = wording.as_difference(row.score["mean"], name)
        unit = " of R\N{SUPERSCRIPT TWO}" * (name == "r2")
        difference = f"{mean}{unit} {wording.as_interval(row.score['interval'], name)}"
        shares = [_share_text(row.dead[f"{side}_scores"]) for side in ("control", "treatment")]
        cells = [row.setting, str(row.score["n"]), difference, row.score["word"], *shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share_text(shares: list[float]) -> str:
    mean = sum(shares) / len(shares)
    return f"{mean:.1%} ({min(shares):.1%} to {max(shares):.1%})"


def picture() -> str:
    """The answer as an SVG that follows the reader's light or dark theme."""
    comparisons = rows()
    scaled = [
        {
            "seeds": row.score["seeds"],
            "differences": [100 * value for value in row.score["differences"]],
            "mean": 100 * row.score["mean"],
            "interval": [100 * value for value in row.score["interval"]],
            "inner": [100 * value for value in row.score["interval_seeds"]],
        }
        for row in comparisons
    ]
    chart = charts.difference_chart(scaled, 100 * comparisons[0].score["margin"])
    sides = ("control_scores", "treatment_scores")
    largest = max(share for row in comparisons for side in sides for share in row.dead[side])
    shares = charts.enclosing_axis(0, largest)
    bottom = _TOP + _ROW * len(comparisons)
    parts = [
        _text(_LEFT, 22, "Test accuracy or R\N{SUPERSCRIPT TWO}, bn_fc less fc, in points", "title"),
        _text(_MIDDLE + 40, 22, "Dead units of the FC layer", "title"),
        _text(_LEFT, 40, "dots: seeds; bar: the judged interval; grey: no material difference", "quiet"),
        _text(_MIDDLE + 40, 40, "dots: seeds; line: mean", "quiet"),
        _rectangle(_across(chart["band"][0]), _across(chart["band"][1]), bottom),
    ]
    for x, tick in chart["ticks"]:
        parts.append(_vertical(_across(x), bottom, "zero" if tick == 0 else "grid"))
        parts.append(_text(_across(x), bottom + 18, f"{tick:+g}" if tick else "0", "quiet mid"))
    for tick in shares.ticks:
        parts.append(_vertical(_aside(shares.across(tick)), bottom, "grid"))
        parts.append(_text(_aside(shares.across(tick)), bottom + 18, f"{100 * tick:.3g} %", "quiet mid"))
    for index, (row, strip) in enumerate(zip(comparisons, chart["rows"], strict=True)):
        top = _TOP + _ROW * index
        parts += [*_labels(row, top), *_strip(strip, top), *_beyond(row, strip, top)]
        parts += _dead_dots(row, shares, top)
    size = f'viewBox="0 0 {_WIDTH} {bottom + 30}" width="{_WIDTH}" height="{bottom + 30}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = f"<title>{escape(' '.join(row.score['sentence'] for row in comparisons))}</title>"
    return "\n".join([opening, title, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _labels(row: Row, top: float) -> list[str]:
    dataset, _, rest = row.setting.partition(", ")
    texts = [(dataset, "title"), (rest, ""), (f"{row.score['n']} seeds", "quiet")]
    lines = [_text(8, top + 26 + 17 * k, text, kind) for k, (text, kind) in enumerate(texts)]
    return [*lines, _text(8, top + 26 + 17 * 3, row.score["word"].lower(), "quiet")]


def _strip(strip: dict, top: float) -> list[str]:
    y = top + 30
    parts = []
    if strip["interval"]:
        left, right = map(_across, strip["interval"])
        parts.append(f'<path class="bn interval" d="M{left:g} {y}H{right:g}"/>')
    if strip["mean"] is not None:
        parts.append(f'<circle class="bn" cx="{_across(strip["mean"]):g}" cy="{y}" r="6"/>')
    for x, level, *_ in strip["dots"]:
        parts.append(f'<circle class="bn seed" cx="{_across(x):g}" cy="{y + 18 + 8 * level:g}" r="3.6"/>')
    return parts


def _beyond(row: Row, strip: dict, top: float) -> list[str]:
    """An arrow with the mean and the interval of a row that lies outside the axis."""
    if strip["mean"] is not None:
        return []
    above = row.score["mean"] > 0
    x, y, sign = _across(100 if above else 0), top + 30, 1 if above else -1
    values = (row.score["mean"], *row.score["interval"])
    text = "{} [{}, {}]".format(*(wording.as_difference(value, row.score["outcome"]) for value in values))
    arrow = f"M{x - 26 * sign:g} {y}H{x:g}m{-7 * sign} -5l{7 * sign} 5l{-7 * sign} 5"
    return [
        f'<path class="bn interval" fill-opacity="0" d="{arrow}"/>',
        _text(x - 34 * sign, y + 4, text, "end" if above else ""),
        _text(x, y + 36, f"{strip['right' if above else 'left']} seeds", "quiet end" if above else "quiet"),
    ]


def _dead_dots(row: Row, axis: charts.Axis, top: float) -> list[str]:
    parts = []
    for k, (kind, side) in enumerate((("fc", "control"), ("bn", "treatment"))):
        y, values = top + 30 + 32 * k, row.dead[f"{side}_scores"]
        mean = _aside(axis.across(sum(values) / len(values)))
        parts += [
            f'<circle class="{kind} seed" cx="{_aside(axis.across(v)):g}" cy="{y}" r="4"/>' for v in values
        ]
        parts.append(f'<path class="{kind} interval" d="M{mean:g} {y - 9}v18"/>')
        parts.append(_text(_MIDDLE + 30, y + 4, f"{kind}_fc".replace("fc_", ""), "quiet end"))
    return parts


def _across(percent: float) -> float:
    return round(_LEFT + (_MIDDLE - 60 - _LEFT) * percent / 100, 1)


def _aside(percent: float) -> float:
    return round(_MIDDLE + 40 + (_WIDTH - 30 - _MIDDLE - 40) * percent / 100, 1)


def _text(x: float, y: float, text: str, kind: str) -> str:
    shown = escape(text.replace("-", "\N{MINUS SIGN}") if text[:1] == "-" else text)
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{shown}</text>'


def _vertical(x: float, bottom: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x:g} {_TOP}V{bottom:g}"/>'


def _rectangle(left: float, right: float, bottom: float) -> str:
    return f'<rect class="band" x="{left:g}" y="{_TOP}" width="{right - left:g}" height="{bottom - _TOP:g}"/>'


def ending() -> str:
    """The last study's end on the terminal."""
    *_, study = answers().values()
    return f"```text\n{format_verdict(study.plan, study.verdict)}\n```"


def filled(readme: str) -> str:
    """The README with the answer of the present result files."""
    for name, text in (("answer", table()), ("verdict", ending())):
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = ".*".join(map(re.escape, marks))
        readme = re.sub(pattern, lambda _, new=text, m=marks: f"{m[0]}\n{new}\n{m[1]}", readme, flags=re.S)
    return readme


if __name__ == "__main__":
    PICTURE.write_text(picture())
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
