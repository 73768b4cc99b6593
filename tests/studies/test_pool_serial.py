import pytest

from bnhead.studies.pool import Job
from bnhead.studies.pool_serial import Pool
from bnhead.training.config import TrainConfig


def events_of(work):
    events = Pool().run([Job("a", "", TrainConfig(), work)])
    return [(event.state, dict(event.detail)) for event in events]


def test_a_generator_yields_progress_and_returns_its_result():
    def work(config, report):
        yield {"share": 0.5}
        yield {"share": 1.0}
        return {"x": 1}

    assert events_of(work) == [
        ("started", {}), ("progress", {"share": 0.5}), ("progress", {"share": 1.0}), ("done", {"x": 1}),
    ]  # fmt: skip


def test_a_function_reports_its_progress():
    def work(config, report):
        report({"share": 0.5})
        return {"x": 1}

    assert events_of(work) == [("started", {}), ("progress", {"share": 0.5}), ("done", {"x": 1})]


def test_an_error_fails_the_job_and_ctrl_c_ends_the_study():
    def fails(config, report):
        yield {"share": 0.5}
        raise ValueError("one\n  two")

    *_, (state, detail) = events_of(fails)
    assert (state, detail["error"], detail["message"]) == ("failed", "ValueError", "one two")
    assert "raise ValueError" in detail["traceback"]

    def interrupted(config, report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        events_of(interrupted)
