"""`bnhead check`: a linter of a net and its training around batch norms.

Modules:

    rules       the rules, a row each; their selection
    findings    the findings of a check
    linter      the check of a model
    net         the calls of a model's layers, and which reads which
    measure     the numbers of a few batches
    evidence    everything that the rules read
    structure, settings, statistics   the rules' functions
"""

from bnhead import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnhead.lint.findings import Finding, Findings
    from bnhead.lint.linter import check
    from bnhead.lint.rules import RULES, Rule, selected

__all__ = ["RULES", "Finding", "Findings", "Rule", "check", "selected"]
__getattr__, __dir__ = public.names(
    __name__,
    {
        "check": "bnhead.lint.linter",
        "Finding": "bnhead.lint.findings",
        "Findings": "bnhead.lint.findings",
        "RULES": "bnhead.lint.rules",
        "Rule": "bnhead.lint.rules",
        "selected": "bnhead.lint.rules",
    },
)
