from tests.studies.fake import plan_of


def test_each_place_once_against_none():
    plan = plan_of("placement")
    assert [cell.placement for cell in plan.cells] == ["", "P0", "P1", "P2", "P3"]
    assert {comparison.control for comparison in plan.comparisons} == {"fc"} and len(plan.comparisons) == 4
