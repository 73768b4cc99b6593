from tests.studies.fake import plan_of


def test_the_usual_head_with_and_without_a_batch_norm():
    plan = plan_of("bn_before_fc")
    assert [(cell.name, cell.placement) for cell in plan.cells] == [("fc", ""), ("bn_fc", "P1")]
    (comparison,) = plan.comparisons
    assert (comparison.control, comparison.treatment) == ("fc", "bn_fc")
