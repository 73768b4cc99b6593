"""Many runs, one plan, a verdict: `bnhead study bn_before_fc`.

`study` lists the named studies; `chain` has the cells of `bnhead diagnose`, `causes` its table. `plan` fixes
the comparisons before the first run; `directory` reads and writes the study's files. `runner` takes a plan to
its verdict: a `pool` (`pool_local`, `pool_ray`) does the runs, each in a `worker`, and `progress` shows them.
`outcomes` reads their results, `verdict` has the rule, `statistics` and `width` its arithmetic, `wording` its
numbers in words. `study_verdict` shows it.

    from bnhead import studies
    verdict = studies.read_verdict("studies/bn_before_fc")
"""

from typing import TYPE_CHECKING

from bnhead import public

if TYPE_CHECKING:
    from bnhead.studies.study_verdict import Verdict, read_verdict

__all__ = ["Verdict", "read_verdict"]
__getattr__, __dir__ = public.names(
    __name__, dict.fromkeys(("Verdict", "read_verdict"), "bnhead.studies.study_verdict")
)
