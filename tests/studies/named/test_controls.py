from bnhead import heads
from tests.studies.fake import plan_of


def test_every_part_of_a_batch_norm_against_the_usual_head():
    plan = plan_of("controls")
    kinds = [[token.kind.name for token in heads.parse(cell.head).tokens] for cell in plan.cells]
    before_fc = [tokens[tokens.index("fc") - 1] for tokens in kinds]
    assert before_fc[1:] == ["bn", "gbn", "fbn", "center", "scale", "noise", "ln"]
    assert {comparison.control for comparison in plan.comparisons} == {"fc"} and len(plan.comparisons) == 7
