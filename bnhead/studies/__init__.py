"""Many runs, one plan, a verdict: `bnhead study bn_before_fc`.

`study` lists the named studies. `plan` fixes the comparisons before the first run; `directory` reads and
writes the study's files. `runner` takes a plan to its verdict: a `pool` (`pool_local`, `pool_ray`) does the
runs, each in a `worker`, and `progress` shows them. `outcomes` reads their results, `verdict` has the rule,
`statistics` and `width` its arithmetic, `wording` its numbers in words.
"""
