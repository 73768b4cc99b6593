"""The cells of a cause table: heads between one without a batch norm and one with it, and controls.

Let C be frozen centring (subtract the mean), S frozen scaling (divide by the deviation), both measured once
on training data before the first step, and N batch noise alone. `chain` has a head for each subset of them,
from none (the control) to all three, then the batch norm without gain and offset, and the batch norm. From
each to the next a single thing changes, so that differences along the chain add up
(`bnhead.studies.causes`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bnhead.errors import UsageError
from bnhead.heads.grammar import parse

CAUSES = "causes"  # the study of `bnhead diagnose`
DEFAULT_HEAD = "bn_fc"
_NORMS = {  # name of a head of the chain -> what stands in place of the batch norm
    "": (),
    "C": ("fcenter",),
    "S": ("fscale",),
    "CS": ("fbn-beta-gamma",),
    "N": ("noise",),
    "CN": ("noise", "fcenter"),
    "SN": ("noise", "fscale"),
    "CSN": ("noise", "fbn-beta-gamma"),
    "statistics": ("bn-beta-gamma",),
    "bn": ("bn",),
}
# What is taken away from both heads, beside the chain. Without a batch norm both units of decay are the same.
NEUTRAL = {"neutral_init": True}
NO_DECAY = {"fc_decay": "none"}
FEATURE_DECAY = {"fc_decay": "features"}
# The moving averages of the batch norm are a link: the last two heads are measured without them, too.
SETTINGS = {"population_stats": True}
FIXED = ("population_stats", "recompute_batch_stats", *NEUTRAL, *NO_DECAY)  # settings that no flag may set


def chain(head: str) -> dict[str, str]:
    """The ten heads of a chain, as canonical texts: "" without the batch norm, "C", "S", "CS", ..., "bn".

    Args:
        head: with a batch norm on the pooled features and no other: `bn_fc`, `catpool_bn_dropout0.5_fc`.

    Raises:
        UsageError: another head.
    """
    words = list(map(str, parse(head).tokens))
    if parse(head).placement != ("P1",) or "bn" not in words:
        raise UsageError(
            "head must have a bn on the pooled features and no other norm over the batch, as bn_fc, "
            f"got {head!r}"
        )
    position = words.index("bn")
    texts = {name: [*words[:position], *norms, *words[position + 1 :]] for name, norms in _NORMS.items()}
    return {name: parse("_".join(text)).text for name, text in texts.items()}


def chain_of(cells: Sequence[Any]) -> dict[str, str]:
    """Link of a chain -> name of its cell, for a study's cells (`plan.Cell`); empty without a whole chain."""
    plain = {cell.head: cell.name for cell in cells if not cell.stratum}
    for text in plain:
        try:
            links = chain(text)
        except UsageError:
            continue
        if plain.keys() >= {*links.values()}:
            return {link: plain[head] for link, head in links.items()}
    return {}


def chain_cells(head: str, task: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The cells of a cause table: head, and the settings in which it differs from the study's.

    Ten cells of the chain, the control first and the batch norm second, and five controls; a regression has
    no classes to guess, and so three.
    """
    heads = chain(head)
    first = [heads[""], heads["bn"]]
    order = [*first, *(text for text in heads.values() if text not in first)]
    taken_away = (NO_DECAY,) if task == "regression" else (NEUTRAL, NO_DECAY)
    controls = [(text, away) for away in taken_away for text in first]
    return [*((text, {}) for text in order), *controls, (heads["bn"], FEATURE_DECAY)]
