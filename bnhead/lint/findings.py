"""Findings of a check: what, where, the number, why it matters and the remedy."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnhead import notebook
from bnhead.lint.rules import RULES, SEVERITIES, Rule
from bnhead.texts import counted, wrapped

_SHOWN = 3  # layers of a finding by name


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        rule: its row.
        where: paths of the layers, the worst first; () for the whole training.
        what: the finding with its numbers, a clause.
        value: the number that was compared with the rule's threshold; None if it was not measured.
        fix: the remedy in one line; the rule's, or a more precise one.
    """

    rule: Rule
    where: tuple[str, ...]
    what: str
    value: float | None
    fix: str

    @property
    def severity(self) -> str:
        """ "error", "warning" or "info"."""
        return self.rule.severity_of(self.value)

    @property
    def place(self) -> str:
        """The layers in words: the first three, and the number of the others."""
        paths, hidden = ", ".join(self.where[:_SHOWN]), len(self.where) - _SHOWN
        return f"{paths} and {hidden} more" if hidden > 0 else paths

    @property
    def compared(self) -> str:
        """The comparison with the threshold, in words."""
        if self.value is None:
            return f"not measured; the threshold is {self.rule.limit}"
        beyond = "" if self.severity != "info" else "not beyond the threshold, "
        return f"{beyond}{self.rule.limit}"

    def __str__(self) -> str:
        head = f"{self.severity} {self.rule.id} {self.rule.name} {self.place}".rstrip()
        lines = f"{self.what} ({self.compared})", f"fix: {self.fix}"
        return "\n".join([head, *(wrapped(line, 80, indent=2) for line in lines)])

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON holds it."""
        rule = self.rule
        return {
            "rule": rule.id,
            "name": rule.name,
            "severity": self.severity,
            "where": list(self.where),
            "what": self.what,
            "figure": rule.figure,
            "value": self.value,
            "threshold": rule.threshold,
            "beyond": "above" if rule.above else "below",
            "why": rule.why,
            "fix": self.fix,
        }


@dataclass(frozen=True)
class Findings(Sequence):
    """All findings of a check, the most severe first.

    Prints as text and shows itself in a notebook.

    Attributes:
        model: name of the model.
        items: the findings.
        checked: ids of the rules that were checked.
        missing: id of each selected rule that was not checked -> the data that it lacks, in words.
        facts: label -> text, for people.
    """

    model: str
    items: tuple[Finding, ...]
    checked: tuple[str, ...]
    missing: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def at_least(self, severity: str) -> list[Finding]:
        """The findings of this severity and of worse ones."""
        least = SEVERITIES.index(severity)
        return [item for item in self.items if SEVERITIES.index(item.severity) >= least]

    def by_rule(self, rule: str) -> list[Finding]:
        """The findings of a rule, by its id."""
        return [item for item in self.items if item.rule.id == rule]

    @property
    def summary(self) -> str:
        """The numbers of findings, in words."""
        numbers = {s: sum(item.severity == s for item in self.items) for s in reversed(SEVERITIES)}
        words = [counted(n, s) if s != "info" else f"{n} info" for s, n in numbers.items() if n]
        left_out = f", {len(self.missing)} not" if self.missing else ""
        return f"{', '.join(words) or 'no finding'}; {counted(len(self.checked), 'rule')} checked{left_out}"

    def to_dict(self) -> dict[str, Any]:
        """The findings as JSON holds them."""
        return {
            "model": self.model,
            "facts": dict(self.facts),
            "findings": [item.to_dict() for item in self.items],
            "checked": list(self.checked),
            "not_checked": dict(self.missing),
        }

    def to_json(self) -> str:
        """`to_dict` as a text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        return "\n".join([f"{self.model}: {self.summary}", *map(str, self.items)])

    def _repr_html_(self) -> str:
        headings = [
            ("rule", ""),
            ("severity", "error, warning or info"),
            ("where", "layers, the worst first"),
            ("number", "the number that is compared with the threshold"),
            ("threshold", "a finding that is not beyond it is an info"),
        ]
        rows = [
            (
                f"{item.rule.id} {item.rule.name}",
                item.severity,
                item.place,
                "not measured" if item.value is None else format(item.value, item.rule.form),
                item.rule.limit,
            )
            for item in self.items
        ]
        notes = [f"{item.rule.id}: {item.what}. Fix: {item.fix}" for item in self.items]
        notes += [f"{rule} is not checked: it needs {need}" for rule, need in self.missing.items()]
        return notebook.table(f"{self.model}: {self.summary}", headings, rows, notes)


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings, the most severe first, then by rule."""
    order = list(RULES)
    return tuple(
        sorted(findings, key=lambda item: (-SEVERITIES.index(item.severity), order.index(item.rule.id)))
    )
