import re

import pytest

from bnhead.errors import UsageError
from bnhead.lint.rules import GROUPS, NEEDS, RULES, rule_named, selected

pytestmark = pytest.mark.quick


def test_ids_and_names_are_permanent():
    """A changed line here breaks the settings of users."""
    assert {rule.id: rule.name for rule in RULES.values()} == {
        "BN101": "bias-before-norm",
        "BN102": "shared-norm",
        "BN103": "norm-on-regression-output",
        "BN201": "slow-averages",
        "BN202": "fast-averages",
        "BN203": "batch-of-one",
        "BN204": "decayed-norm",
        "BN205": "zero-output-bias",
        "BN206": "unmixed-batches",
        "BN301": "frozen-after-compile",
        "BN302": "norm-behind-frozen-layers",
        "BN401": "dropout-before-norm",
        "BN402": "large-epsilon",
        "BN403": "constant-features",
        "BN404": "rare-features",
        "BN405": "moving-variance-out-of-range",
        "BN501": "dead-units",
    }


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_every_row_is_complete(rule):
    assert rule.severity in ("warning", "error") and rule.id[:3] in GROUPS
    assert rule.needs in NEEDS and (rule.measures == "" or rule.measures in NEEDS)
    assert rule.is_beyond(rule.threshold, rule.notable) or rule.threshold == rule.notable
    assert rule.why.endswith(".") and rule.fix.endswith(".") and "\n" not in rule.fix and len(rule.fix) < 110
    assert not rule.headline.endswith(".") and re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)


def test_severity_is_the_rules_only_beyond_the_threshold():
    above, below = RULES["BN401"], RULES["BN203"]
    assert [above.severity_of(v) for v in (1.11, 1.1, 1.0, None)] == ["warning", "info", "info", "info"]
    assert [below.severity_of(v) for v in (1, 2, 3, None)] == ["warning", "info", "info", "info"]
    assert above.severity_of(float("nan")) == below.severity_of(float("nan")) == "info"
    assert (above.limit, below.limit) == ("more than 1.10", "less than 2")


def test_selection():
    assert selected() == list(RULES)
    assert selected(["BN4"]) == ["BN401", "BN402", "BN403", "BN404", "BN405"]
    assert selected(["bn501", "dropout-before-norm"]) == ["BN401", "BN501"]
    assert selected(["BN3"], ["BN301"]) == ["BN302"]
    assert "BN101" not in selected(ignore=["bias-before-norm"])
    with pytest.raises(UsageError, match=r"select: rule 'BN410' is not known; did you mean 'BN\d+'\?"):
        selected(["BN410"])
    with pytest.raises(UsageError, match=r"ignore: rule 'dropout' is not known; did you mean 'drop"):
        selected(ignore=["dropout"])
    with pytest.raises(UsageError, match="leave no rule to check"):
        selected(["BN1"], ["BN"])


def test_a_rule_by_id_or_name():
    assert rule_named("bn401") is rule_named("Dropout-Before-Norm") is RULES["BN401"]
    with pytest.raises(UsageError, match=r"rule 'slow-average' is not known; did you mean 'slow-averages'\?"):
        rule_named("slow-average")
    with pytest.raises(UsageError, match="rule 'q' is not known; bnhead check --list_rules lists them"):
        rule_named("q")
