"""The table of named studies in docs/studies.md, from their type."""

from bnhead.studies.study import STUDIES, named_study
from bnhead.training import TrainConfig


def table() -> str:
    """A row for each study: its question, its heads (the control first) and what it varies."""
    lines = ["| `bnhead study` | question | heads, the control first | varies |", "|---|---|---|---|"]
    for name in STUDIES:
        study = named_study(name)
        strata = [dict(stratum) for stratum in study.strata(TrainConfig())]
        varied = "; ".join(
            f"`{key}`: {', '.join(f'{stratum[key]:g}' for stratum in strata)}" for key in strata[0]
        )
        heads = ", ".join(f"`{head}`" for head in study.heads)
        lines.append(f"| `{name}` | {study.question} | {heads} | {varied} |".replace("  ", " "))
    return "\n".join(lines)
