"""The command `bnhead diagnose`: which mechanism of a batch norm makes the difference."""

import dataclasses
from collections.abc import Sequence

from bnhead.cli import study
from bnhead.cli.flags import Command
from bnhead.studies.chain import CAUSES, DEFAULT_HEAD, FIXED
from bnhead.studies.study import cause_study
from bnhead.training.config import setting

_OF_OTHERS = ("study", *study.GROUPS["Heads of your choice"], *FIXED)
_CHANGED = {
    "seeds": setting("10", "Number of seeds; each takes 15 runs."),
    "dir": setting("", f"Directory of the study. Default: studies/{CAUSES}."),
}
Request = dataclasses.make_dataclass(
    "Request",
    [
        (
            "head",
            str,
            setting(
                DEFAULT_HEAD,
                "The head with the batch norm, on the pooled features: bn_fc, bn_out, "
                "catpool_bn_dropout0.25_fc. The control is the same head without it.",
            ),
        ),
        *(
            (
                spec.name,
                spec.type,
                _CHANGED.get(spec.name, dataclasses.field(default=spec.default, metadata=spec.metadata)),
            )
            for spec in dataclasses.fields(study.Request)
            if spec.name not in _OF_OTHERS
        ),
    ],
    frozen=True,
)
COMMAND = Command(
    "bnhead diagnose",
    Request,
    "Finds out which mechanism of a batch norm before the last fully connected layer makes the difference: "
    "centring, scaling, batch noise, the gradient through the statistics, gain and offset, or moving "
    "averages that do not match. The rows of its cause table add up to the difference, for every seed. "
    "Beside them: what of it goes away with a neutral initial guess, without weight decay, and with decay "
    "in the features' units. It trains 15 cells with every seed. Flags of `bnhead train` apply to all runs. "
    "The same command continues a diagnosis that was stopped.",
    study.COMMAND.status,
    aliases=study.COMMAND.aliases,
    examples=(
        ("", "The embedded digits: 150 runs, whose time is estimated first."),
        ("--dry_run", "Lists the runs and estimates their time; writes nothing."),
        ("--dataset=cifar10 --epochs=10 --seeds=5", "A data set of TFDS, briefly."),
        ("--head=bn_out --batch_size=16", "Another head, with more batch noise."),
    ),
    groups={
        "Diagnosis": ("head", *study.GROUPS["Study"]),
        **{
            heading: tuple(name for name in names if name not in _OF_OTHERS)
            for heading, names in study.GROUPS.items()
            if heading not in ("Study", "Heads of your choice")
        },
    },
    refused={
        **{name: "the study sets it" for name in study.OWNED if name not in ("head", "dry_run")},
        **dict.fromkeys(FIXED, "the cells of the cause table set it"),
    },
)


def main(
    arguments: Sequence[str],
    open_pool: study.OpenPool | None = None,
    build_report: study.BuildReport | None = None,
) -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the command line.
        open_pool, build_report: as of `bnhead.cli.study.main`.
    """
    return COMMAND.run(
        arguments,
        lambda request: study.run_study(
            request, *study.planned(request, cause_study(request.head), arguments), open_pool, build_report
        ),
    )
