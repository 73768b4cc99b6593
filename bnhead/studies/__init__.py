"""Many runs, one plan, a verdict: `bnhead study bn_before_fc`.

`plan` says what is compared and is frozen before the first run, `named` has the studies with a name,
`engines` do the runs (`local`, `ray`), each in a `worker`; `directory` keeps the study's files, `outcomes`
reads what came of the runs, `statistics` has the arithmetic, `width` the law of dead units and width,
`verdict` the rule, `verify` recomputes it; `progress` is what a person sees and `command` turns flags into
all this.
"""
