"""The rules in docs/check.md, from their rows, and their examples in docs/rules/.

`python docs/generate_rules.py [BN401 ...]` runs the examples and keeps what they print.
"""

import contextlib
import io
import pathlib
import sys

from bnhead.lint.rules import GROUPS, NEEDS, RULES, Rule

EXAMPLES = pathlib.Path(__file__).resolve().parent / "rules"


def script(rule: str) -> pathlib.Path:
    """The example of a rule: it builds the mistake, checks it, and measures what it costs."""
    return EXAMPLES / f"{rule.lower()}.py"


def output(rule: str) -> pathlib.Path:
    """What the example has printed."""
    return script(rule).with_suffix(".txt")


def run(rule: str) -> str:
    """Runs the example of a rule, which checks its own numbers, and returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(script(rule).read_text(), script(rule), "exec"), {})
    return printed.getvalue()


def sections() -> str:
    """The table of all rules, and a section for each."""
    rows = [
        f"| [{rule.id}](#{anchor(rule)}) | {rule.headline} | {rule.severity} if {_escaped(rule.limit)} |"
        for rule in RULES.values()
    ]
    lines = ["| rule | mistake | threshold |", "|---|---|---|", *rows, ""]
    for prefix, heading in GROUPS.items():
        lines += [f"## {heading}", ""]
        for rule in RULES.values():
            lines += _section(rule) if rule.id.startswith(prefix) else []
    return "\n".join(lines)


def anchor(rule: Rule) -> str:
    """The id of a rule's heading."""
    return f"{rule.id.lower()}-{rule.name}"


def _section(rule: Rule) -> list[str]:
    needs = NEEDS[rule.needs] + (f"; the number needs {NEEDS[rule.measures]}" if rule.measures else "")
    source = rule.source if not rule.source.startswith("https://") else f"<{rule.source}>"
    lines = [
        f"### {rule.id} {rule.name}",
        "",
        f"**{rule.headline[0].upper()}{rule.headline[1:]}.** {_escaped(rule.why)}",
        "",
        f"- number: {_escaped(rule.figure)}; {rule.severity} if {_escaped(rule.limit)}, else info",
        f"- fix: {_escaped(rule.fix)}",
        f"- reads: {needs}",
        *([f"- source: {source}"] if source else []),
        "",
    ]
    seen = ["```text", output(rule.id).read_text().rstrip(), "```", ""]
    code = ["```python", script(rule.id).read_text().rstrip(), "```", ""]
    return [*lines, *seen, '<details markdown="1"><summary>The code</summary>', "", *code, "</details>", ""]


def _escaped(text: str) -> str:
    """A text in which Markdown finds no markup."""
    for mark in ("\\", "|", "<", ">", "*", "_", "["):
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else f"&{'l' if mark == '<' else 'g'}t;")
    return text


if __name__ == "__main__":
    import keras

    for name in sys.argv[1:] or RULES:
        keras.utils.clear_session()
        output(name).write_text(run(name))
        print(output(name).read_text())
