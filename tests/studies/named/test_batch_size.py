from tests.studies.fake import plan_of


def test_the_learning_rate_goes_with_the_batch_size():
    strata = [dict(one.stratum) for one in plan_of("batch_size").comparisons]
    assert strata == [
        {"batch_size": 16, "learning_rate": 0.0125},
        {"batch_size": 32, "learning_rate": 0.025},
        {"batch_size": 64, "learning_rate": 0.05},
        {"batch_size": 128, "learning_rate": 0.1},
        {"batch_size": 256, "learning_rate": 0.2},
    ]
