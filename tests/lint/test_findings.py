import json

import pytest

from bnhead.lint.findings import Finding, Findings, ordered
from bnhead.lint.rules import RULES

pytestmark = pytest.mark.quick


def made(rule, value, where=("bn",)):
    return Finding(RULES[rule], where, "a number was seen", value, RULES[rule].fix)


ITEMS = ordered([made("BN203", 5), made("BN401", 1.5, tuple("abcde")), made("BN301", 2), made("BN102", None)])


def test_the_most_severe_comes_first():
    assert [(item.rule.id, item.severity) for item in ITEMS] == [
        ("BN301", "error"),
        ("BN401", "warning"),
        ("BN102", "info"),
        ("BN203", "info"),
    ]


def test_a_finding_says_how_it_compares_with_the_threshold():
    by_rule = {item.rule.id: item for item in ITEMS}
    assert by_rule["BN401"].compared == "more than 1.10"
    assert by_rule["BN203"].compared == "not beyond the threshold, less than 2"
    assert by_rule["BN102"].compared == "not measured; the threshold is more than 0.25"
    assert by_rule["BN401"].place == "a, b, c and 2 more" and by_rule["BN203"].place == "bn"


def test_the_findings_of_a_check():
    missing = {"BN206": "data with labels"}
    findings = Findings("net", ITEMS, ("BN301", "BN401"), missing, {"read": "8 examples"})
    assert len(findings) == 4 and list(findings) == list(ITEMS) and findings[0].rule.id == "BN301"
    assert [len(findings.at_least(severity)) for severity in ("error", "warning", "info")] == [1, 2, 4]
    assert findings.by_rule("BN401") == [ITEMS[1]]
    assert findings.summary == "1 error, 1 warning, 2 info; 2 rules checked, 1 not"
    text = str(findings)
    assert (
        "warning BN401 dropout-before-norm a, b, c and 2 more\n  a number was seen (more than 1.10)\n" in text
    )
    assert f"\n  fix: {RULES['BN301'].fix}\n" in text
    content = json.loads(findings.to_json())
    assert content["not_checked"] == missing and content["facts"] == {"read": "8 examples"}
    assert [item["value"] for item in content["findings"]] == [2, 1.5, None, 5]
    assert content["findings"][1]["where"] == list("abcde") and content["findings"][1]["threshold"] == 1.1
    assert Findings("net", (), ("BN301",)).summary == "no finding; 1 rule checked"


def test_in_a_notebook():
    item = made("BN401", 1.5, ("<b>",))
    html = Findings("net", (item,), ("BN401",), {"BN206": "data"})._repr_html_()
    assert "BN401 dropout-before-norm" in html and "&lt;b&gt;" in html and "<b>" not in html
    assert "1.50" in html and "BN206 is not checked: it needs data" in html
