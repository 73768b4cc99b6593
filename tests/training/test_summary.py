import pytest

from bnhead.training.config import TrainConfig
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


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr("bnhead.texts.shutil.which", lambda name: f"/bin/{name}")


def test_summary_shows_every_definition_and_what_is_next(short_config):
    config = TrainConfig(head="bn_fc", workdir="some where", epochs=3, overwrite=True)
    text = format_summary(config, RESULT, 12.34, program="python train.py")
    assert (
        text
        == """
head                2x2x64 -> gap -> 64 -> fc(256, relu) -> out(10)
  P1                on the pooled features
test accuracy       97.50% of 360 images (95 % interval 95.32% to 98.68%)
units of head_fc    12.5 % dead; 50 % silent per input is usual for ReLU
  counted on        360 test images
  dead              12.5% (each fires on less than 0.83% of inputs, at 95 %)
  silent per input  50.0% (25.0% to 75.0% for 90 % of the inputs)
  rarely active     20.0% (on less than 1 % of the inputs, dead ones included)
  always on         6.2%
time                12.3 s
run                 some where
next                bnhead report 'some where'
                    bnhead inspect 'some where'
                    tensorboard --logdir 'some where/'
to compare          python train.py --head=fc --epochs=3"""
    )


def test_commands_are_those_of_a_checkout_where_nothing_is_installed(monkeypatch, short_config):
    monkeypatch.setattr("bnhead.texts.shutil.which", lambda name: None)
    assert "python -m bnhead report x\n" in format_summary(TrainConfig(workdir="x"), RESULT, None)


def test_summary_fits_80_columns(monkeypatch, short_config):
    monkeypatch.setenv("COLUMNS", "80")
    checks = {"warnings": ["word " * 40]}
    result = {**RESULT, "head": " -> ".join(["dropout(0.5)"] * 12), "data": {"test": 60, "checks": checks}}
    lines = format_summary(TrainConfig(workdir="x"), result, 1.0).splitlines()
    assert max(map(len, lines)) <= 80
    assert "warning             60 test images are few: one is 1.7 points of accuracy" in lines


def test_a_test_accuracy_at_chance_is_a_warning(short_config, tmp_path):
    checks = {"class_counts": {"test": [36] * 10}, "batches": {"steps": 11}}
    (tmp_path / "history.csv").write_text("epoch,accuracy\n1,0.5\n2,0.72\n")
    result = {**RESULT, "test_accuracy": 0.1, "data": {"test": 360, "checks": checks}}
    text = format_summary(TrainConfig(workdir=str(tmp_path)), result, None)
    assert "warning             test accuracy is at chance, 10.0%" in text
    (tmp_path / "history.csv").unlink()
    assert "warning" not in format_summary(TrainConfig(workdir=str(tmp_path)), result, None)


def test_summary_shows_validation_and_warnings(short_config):
    checks = {"splits": {"validation": 144}, "warnings": ["2 test images are training images too"]}
    validated = {"validation_loss": 0.2, "validation_accuracy": 0.5, "data": {"test": 360, "checks": checks}}
    text = format_summary(short_config(), {**RESULT, **validated}, None)
    assert "\nvalidation accuracy 50.00% of 144 images (95 % interval 41.94% to 58.06%)\n" in text
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
