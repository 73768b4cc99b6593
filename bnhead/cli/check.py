"""The command `bnhead check`: mistakes around the batch norms of a model or run, before any training."""

import dataclasses
import json
import pathlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bnhead import texts
from bnhead.cli.flags import Command
from bnhead.cli.source import SourceFlags, memory_as_error, require_choice, require_least, start_backend
from bnhead.lint.rules import GROUPS, NEEDS, RULES, SEVERITIES, Rule, rule_named, selected
from bnhead.runs.directory import RunDirectory
from bnhead.training.config import TrainConfig, setting

if TYPE_CHECKING:
    from bnhead.lint.findings import Finding, Findings
    from bnhead.training.reopen import Source

NEVER = "never"
FORMATS = ("console", "json")
_LABELS = 13  # columns of the facts' labels
_INDENT = 9  # columns of a severity
_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True)
class Request(SourceFlags):
    """The settings of one check. Each field except `model` is a flag of the same name.

    Raises:
        UsageError: an invalid value, or an unknown name or rule, with the nearest valid one.
    """

    command: ClassVar[str] = "check"
    needs_data: ClassVar[bool] = False

    batch_size: int = setting(
        0, "Training examples in a batch. 0: the run's own, else 128, the default of bnhead train."
    )
    epochs: int = setting(
        0, "Epochs of the training, for the rules about its length. 0: the run's own, if any."
    )
    examples: int = setting(512, "Training examples to read, at least; a whole batch is always read.")
    shuffle: bool = setting(True, "Whether the training shuffles the arrays of --data, as Keras' fit does.")
    drop_remainder: bool = setting(
        False, "The training of a file leaves out a last batch of fewer examples. That of bnhead always does."
    )
    select: str = setting(
        "", "Rules to check, joined by commas: ids, names, or beginnings of ids such as BN4. Default: all."
    )
    ignore: str = setting("", "Rules to leave out, likewise.")
    fail_on: str = setting(
        "warning",
        f"End with status 1 if a finding is at least this severe: {', '.join(SEVERITIES)}; {NEVER} does not.",
    )
    format: str = setting("console", f"Form of the output: {' or '.join(FORMATS)}.")
    list_rules: bool = setting(False, "List the rules and end; needs no model.")
    explain: str = setting("", "Explain one rule, by its id or name, and end; needs no model.")

    def __post_init__(self):
        require_choice("format", self.format, FORMATS)
        require_choice("fail_on", self.fail_on, (*SEVERITIES, NEVER))
        for name, least in (("batch_size", 0), ("epochs", 0), ("examples", 1)):
            require_least(name, getattr(self, name), least)
        _ = self.rules
        if self.explain:
            rule_named(self.explain)
        if not (self.list_rules or self.explain):
            super().__post_init__()

    @property
    def rules(self) -> list[str]:
        """Ids of the rules to check."""
        return selected(*(list(filter(None, text.split(","))) for text in (self.select, self.ignore)))


GROUPS_OF_FLAGS = {
    "Training": ("batch_size", "epochs", "drop_remainder", "shuffle"),
    "Rules": ("select", "ignore", "fail_on", "list_rules", "explain"),
    "Data": ("dataset", "data", "task", "data_dir", "image_size", "examples"),
    "Model": ("head", "weights", "seed", "pixels", "custom_objects", "safe_mode"),
    "Output": ("format",),
}
COMMAND = Command(
    "bnhead check",
    Request,
    "Finds mistakes around the batch norms of a model and its training, in seconds and before any training. "
    "Each finding has a rule with a permanent id, the number that was measured, and a remedy.",
    "Exit status: 0 ok, 1 a finding as severe as --fail_on, 2 usage, 3 run directory, 4 data, 6 memory or "
    "disk full, 130 interrupted.",
    positional="model",
    optional=True,
    groups=GROUPS_OF_FLAGS,
    examples=(
        (
            "resnet20 --dataset=digits --head=fastai --epochs=10",
            "A net and its training, before the first step.",
        ),
        ("runs/digits/resnet20/bn_fc/seed0", "A finished run."),
        ("mine.keras --data=train.npz --batch_size=32", "A model of your own, on arrays of your own."),
        ("mine.keras --select=BN1,BN202", "Without data: the rules that read the net alone."),
        ("--list_rules", "All rules."),
        ("--explain=BN401", "One rule: what it compares, why it matters, the remedy."),
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, check_model)


def check_model(request: Request) -> int:
    """Prints the rules or the findings, and returns 1 for a finding as severe as `fail_on`."""
    if request.list_rules or request.explain:
        rules = [rule_named(request.explain)] if request.explain else [RULES[name] for name in request.rules]
        if request.format == "json":
            print(json.dumps([dataclasses.asdict(rule) for rule in rules], indent=2))
        else:
            print(explained(rules[0]) if request.explain else listed(rules))
        return 0
    start_backend(f"TensorFlow, {request.model} and its data")
    source = request.open()
    with memory_as_error(request.model):
        findings = findings_of(request, source)
    if request.format == "json":
        print(findings.to_json())
    else:
        _print_findings(findings, request)
    return int(request.fail_on != NEVER and bool(findings.at_least(request.fail_on)))


def findings_of(request: Request, source: "Source") -> "Findings":
    """The findings on a model and the training data of its data set or arrays.

    A run's training is that of its settings, and any training by bnhead leaves out the remainder.
    """
    from bnhead.data.arrays import Arrays
    from bnhead.lint.linter import check

    settings = RunDirectory(pathlib.Path(request.model)).trained_settings() if request.is_run else {}
    batch_size = request.batch_size or settings.get("batch_size") or TrainConfig.batch_size
    epochs = request.epochs or settings.get("epochs", 0)
    options: dict[str, Any] = {"epochs": epochs, "examples": request.examples, "task": request.task}
    options |= {"drop_remainder": request.drop_remainder, "shuffle": request.shuffle}
    options |= {"select": request.rules}
    if source.dataset is None:
        return check(source.model, None, batch_size, **options)
    data = source.training_batches(batch_size, settings.get("augment", "none"))
    if isinstance(source.dataset, Arrays):
        data = data[0] if data[1] is None else data
        return check(source.model, data, batch_size, **options)
    options["labels"] = source.dataset.train.labels
    options["task"] = source.task
    options["drop_remainder"] |= not request.model.endswith(".keras")
    with source.dataset.naming_pictures():
        return check(source.model, data, batch_size, **options)


def listed(rules: Sequence[Rule]) -> str:
    """The rules in their groups, a line or two each."""
    lines = []
    for group, heading in GROUPS.items():
        members = [rule for rule in rules if rule.id.startswith(group)]
        lines += ["", heading] if members and lines else [heading] if members else []
        for rule in members:
            text = f"  {rule.id}  {rule.severity:<9}{rule.headline}"
            lines.append(texts.wrapped(text, hanging=18))
    example = f"{texts.command()} check --explain={rules[0].id}"
    return "\n".join([*lines, "", f"next  {example}"])


def explained(rule: Rule) -> str:
    """All that is known of a rule, for the terminal."""
    needs = NEEDS[rule.needs] + (f"; its number needs {NEEDS[rule.measures]}" if rule.measures else "")
    beyond = f"{rule.severity} if {rule.limit}, else info"
    rows = [
        ("mistake", f"{rule.headline}."),
        ("number", f"{rule.figure}."),
        ("severity", f"{beyond}."),
        ("why", rule.why),
        ("fix", rule.fix),
        ("reads", f"{needs}."),
        *([("source", rule.source)] if rule.source else []),
    ]
    return f"{rule.id} {rule.name}\n\n{texts.labelled(rows, 10)}"


def _print_findings(findings: "Findings", request: Request) -> None:
    """Prints the facts, the findings and the summary, in the width of the terminal."""
    from rich.console import Console

    console = Console(highlight=False, width=texts.columns(), soft_wrap=True)
    title = (
        request.model
        if request.is_run or request.model.endswith(".keras")
        else (f"{request.model} with head {request.head}")
    )
    console.print(f"{texts.wrapped(texts.one_line(title))}\n", markup=False)
    console.print(texts.labelled(findings.facts.items(), _LABELS), markup=False)
    for finding in findings:
        console.print()
        console.print(rendered(finding, console.width))
    style = _STYLES[findings[0].severity] if len(findings) else "green"
    console.print()
    console.print(findings.summary, style=style, markup=False)
    by_need: dict[str, list[str]] = {}
    for rule, need in findings.missing.items():
        by_need.setdefault(need, []).append(rule)
    for need, rules in by_need.items():
        verb = "needs" if len(rules) == 1 else "need"
        text = f"not checked: {', '.join(rules)} {verb} {need}"
        console.print(texts.wrapped(text, hanging=2), markup=False)
    if len(findings):
        console.print(f"next  {texts.command()} check --explain={findings[0].rule.id}", markup=False)


def rendered(finding: "Finding", width: int) -> Any:
    """A finding as `rich.text.Text`: severity, rule and layers; what, why and the remedy below."""
    from rich.text import Text

    rule, style = finding.rule, _STYLES[finding.severity]
    text = Text()
    text.append(f"{finding.severity:<{_INDENT}}", style)
    head = f"{rule.id} {rule.name}"
    paths = texts.one_line(finding.place)
    text.append(head, "bold")
    same_line = _INDENT + len(head) + 2 + len(paths) <= width
    text.append(f"  {paths}" if paths and same_line else "")
    rows = [] if same_line or not paths else [("", paths)]
    rows += [("", f"{finding.what} ({finding.compared})"), ("why", rule.why), ("fix", finding.fix)]
    for label, content in rows:
        lines = textwrap.wrap(
            texts.one_line(content),
            max(20, min(width, 100) - _INDENT),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, line in enumerate(lines):
            text.append("\n")
            text.append(f"  {label if not number else '':<{_INDENT - 2}}", "dim")
            text.append(line)
    return text
