from tests.studies.fake import plan_of


def test_learning_rates_lie_around_the_bases():
    rates = [one.stratum["learning_rate"] for one in plan_of("learning_rate").comparisons]
    assert rates == [0.01, 0.03, 0.1, 0.3]
    rates = [one.stratum["learning_rate"] for one in plan_of("learning_rate", learning_rate=0.05).comparisons]
    assert rates == [0.005, 0.015, 0.05, 0.15]
