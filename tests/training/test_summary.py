import pytest

from bnhead.training.summary import format_summary

pytestmark = pytest.mark.quick


RESULT = {
    "status": "finished",
    "epochs": 2,
    "test_accuracy": 0.975,
    "test_loss": 0.1,
    "head": "2x2x64 -> gap -> 64 -> fc(256, relu) -> out(10)",
    "data": {"test": 360},
    "dead/head_fc/per_input": 0.5,
    "dead/head_fc/per_input_p05": 0.25,
    "dead/head_fc/per_input_p50": 0.5,
    "dead/head_fc/per_input_p95": 0.75,
    "dead/head_fc/dataset": 0.125,
    "dead/head_fc/rarely_active": 0.2,
    "dead/head_fc/always_on": 0.0625,
    "dead/head_fc/inputs": 360,
    "dead/head_fc/bound": 3 / 360,
}


def test_summary_shows_every_definition_and_where_to_look(short_config):
    text = format_summary(short_config(workdir="somewhere"), RESULT, 12.34)
    assert (
        text
        == """
head                2x2x64 -> gap -> 64 -> fc(256, relu) -> out(10)
test accuracy       97.50% of 360 images
units of head_fc    on 360 test images
  dead              12.5% (each fires on less than 0.83% of inputs, at 95 %)
  silent per input  50.0% (25.0% to 75.0% for 90 % of the inputs)
  rarely active     20.0% (on less than 1 % of the inputs, dead ones included)
  always on         6.2%
time                12.3 s
run                 somewhere
look                tensorboard --logdir somewhere/"""
    )


def test_summary_shows_validation_and_warnings(short_config):
    checks = {"splits": {"validation": 144}, "warnings": ["2 test images are training images too"]}
    validated = {"validation_loss": 0.2, "validation_accuracy": 0.5, "data": {"test": 360, "checks": checks}}
    text = format_summary(short_config(), {**RESULT, **validated}, None)
    assert "\nvalidation accuracy 50.00% of 144 images\n" in text
    assert "\nwarning             2 test images are training images too\n" in text


def test_summary_of_a_result_that_lacks_figures(short_config):
    """A file of the right shape, of which somebody took some away."""
    bare = {"status": "finished", "epochs": 2, "data": {"test": 9}, "replicas": 2, "validation_loss": None}
    text = format_summary(short_config(), {**bare, "dead/fc/per_input": 0.5}, None)
    assert "test R^2            not finite, mean absolute error not finite, on 9 images" in text
    assert "silent per input  50.0% (not finite to not finite" in text


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_summary_of_a_diverged_run(short_config, unknown):
    result = {**RESULT, "status": "diverged", "test_accuracy": unknown, "dead/head_fc/per_input": unknown}
    text = format_summary(short_config(), result, None)
    assert "status              diverged in epoch 2 of 2" in text
    assert "test accuracy       not finite" in text
    assert "head_fc: unknown" in text and "\n  dead" not in text
    assert "time" not in text
