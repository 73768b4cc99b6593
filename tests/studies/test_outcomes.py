import json
import math

import numpy as np
import pytest
from scipy import special

from bnhead.runs.directory import RunDirectory
from bnhead.runs.run_files import read_run_files
from bnhead.studies.outcomes import damage, exclusions, flow, read_outcomes
from bnhead.studies.plan import with_data
from tests.studies.fake import FACTS, plan_of, predictions_of, write_run

pytestmark = pytest.mark.quick


@pytest.fixture
def plan():
    return with_data(plan_of(), FACTS)


def test_outcomes_are_what_the_files_say(plan, tmp_path):
    configs = [plan.config(run, tmp_path) for run in plan.runs]
    write_run(configs[0], 0.9)
    write_run(configs[1], None, status="diverged", test_accuracy=float("nan"))
    write_run(configs[2], 0.1, status="failed_to_learn")
    RunDirectory(configs[3].directory).begin(configs[3].settings())
    RunDirectory(configs[4].directory).begin(configs[4].settings())
    write_run(configs[5], 0.8)
    failures = {
        plan.runs[4].id: {"error": "ValueError", "message": "no"},
        plan.runs[5].id: {"error": "ValueError", "message": "of an earlier attempt"},
    }
    outcomes = read_outcomes(plan, tmp_path, failures)
    assert [one.status for one in outcomes] == [
        "finished", "diverged", "failed_to_learn", "unfinished", "failed", "finished", "missing", "missing",
    ]  # fmt: skip
    assert [one.score for one in outcomes] == [0.9, 0.1, 0.1, None, None, 0.8, None, None]
    assert flow(outcomes) == {
        "planned": 8,
        "started": 6,
        "finished": 2,
        "diverged": 1,
        "failed_to_learn": 1,
        "failed": 1,
        "missing": 3,
        "analysed": 4,
    }
    assert [(one["cell"], one["seed"], one["reason"]) for one in exclusions(outcomes)] == [
        ("fc", 1, "diverged, scored at chance"),
        ("fc", 2, "failed to learn, scored at chance"),
        ("fc", 3, "not finished"),
        ("bn_fc", 0, "ValueError: no"),
        ("bn_fc", 2, "not started"),
        ("bn_fc", 3, "not started"),
    ]


def cut(path):
    path.write_bytes(path.read_bytes()[:20])


def edit(key, value):
    def change(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("result.json", cut, "result.json cannot be read"),
        ("config.json", cut, "config.json cannot be read"),
        ("environment.json", cut, "environment.json cannot be read"),
        ("config.json", edit("momentum", 0.1), "config.json holds other settings than the plan"),
        ("config.json", lambda path: path.unlink(), "result.json exists and config.json does not"),
        ("result.json", edit("test_accuracy", 0.91), "test_accuracy is 0.9 in history.csv and 0.91 in"),
        ("result.json", edit("test_accuracy", None), "result.json has no finite test_accuracy"),
        ("result.json", edit("epochs", 1), "history.csv has 2 epochs, result.json 1"),
        ("result.json", edit("status", "done"), "result.json has the status 'done', with which no run ends"),
        ("result.json", edit("status", "diverged"), "status is finished in status.json and diverged in"),
        (
            "result.json",
            edit("data", None),
            "result.json cannot be read: data must be of type dict, got None",
        ),
        ("result.json", edit("test_loss", 0.2), "test_loss is 0.5 in history.csv and 0.2 in result.json"),
        ("result.json", edit("dead/head_fc/per_input", 0.1), "dead/head_fc/per_input is 0.4 in history.csv"),
        ("environment.json", lambda path: path.unlink(), "result.json exists and environment.json does not"),
        ("history.csv", lambda path: path.write_bytes(path.read_bytes()[:-5]), "history.csv cannot be read"),
        ("history.csv", lambda path: path.write_text('"' + "0" * 200_000), "history.csv cannot be read"),
        ("history.csv", lambda path: path.unlink(), "history.csv is missing"),
        ("history.csv", cut, "history.csv has no values of test_accuracy"),
        ("history.csv", lambda path: path.write_bytes(b"\xff\xfe"), "history.csv cannot be read"),
        (
            "history.csv",
            lambda path: path.write_text("\ufeff" + path.read_text()),
            "history.csv has another SHA-256",
        ),
        (
            "history.csv",
            lambda path: path.write_text("E" + path.read_text()[1:]),
            "history.csv has another SHA-256",
        ),
        ("status.json", cut, "status.json cannot be read"),
        ("status.json", edit("note", 1), "status.json is not as the run left it"),
        ("status.json", edit("sha256", {"../x": "0"}), "status.json is not as the run left it"),
        ("status.json", edit("status", "running"), "status is running in status.json and finished in"),
        (
            "environment.json",
            edit("seconds", 9.0),
            "environment.json has another SHA-256 than in status.json",
        ),
        ("result.json", edit("replicas", 2), "result.json has another SHA-256 than in status.json"),
        ("model.keras", lambda path: path.write_text("another"), "model.keras has another SHA-256 than in"),
    ],
)
def test_damage_is_found(plan, tmp_path, name, harm, message):
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, 0.9)
    place = tmp_path / "runs" / plan.runs[0].id
    assert damage(read_run_files(place), config.settings(), "test_accuracy") == ""
    harm(place / name)
    assert message in damage(read_run_files(place), config.settings(), "test_accuracy")
    assert read_outcomes(plan, tmp_path)[0].status == "damaged"


def test_every_digit_of_every_text_counts(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, 0.9, replicas=1, batch_norm_examples=128)
    place = tmp_path / "runs" / plan.runs[0].id
    changed = 0
    texts = [path for path in sorted(place.iterdir()) if path.name != "predictions.npz"]
    for path in texts:
        text = path.read_text()
        for at in (at for at, letter in enumerate(text) if letter.isdigit()):
            path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
            found = damage(read_run_files(place), config.settings(), "test_accuracy")
            assert path.name in found and "\n" not in found, (path.name, at)
            changed += 1
        path.write_text(text)
    assert changed > 200 and damage(read_run_files(place), config.settings(), "test_accuracy") == ""


def test_every_byte_of_the_predictions_counts(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, 0.9)
    path = tmp_path / "runs" / plan.runs[0].id / "predictions.npz"
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        (first, *_) = read_outcomes(plan, tmp_path)
        assert first.status == "damaged" and "predictions.npz" in first.reason, at
    path.unlink()
    (first, *_) = read_outcomes(plan, tmp_path)
    assert first.status == "damaged" and first.reason.startswith("predictions.npz")


def test_the_values_of_a_finished_run_are_those_of_its_images(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    result = write_run(config, 0.9, **{"dead/head_fc/dataset": 0.125})
    kept = predictions_of(result, config)
    (first, *_) = read_outcomes(plan, tmp_path)
    assert first.layer == "head_fc" and first.score == 0.9
    expected = {
        "accuracy": (kept.outputs.argmax(1) == kept.labels).astype(float),
        "dead_share": [0.125],
        "silent_share": np.full(360, np.float32(0.4)),
        "nll": special.logsumexp(kept.outputs.astype(float), axis=1) - kept.outputs[:, 0],
    }
    assert first.values.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(first.values[name], values, rtol=1e-6)


@pytest.mark.parametrize("status", ["diverged", "failed_to_learn"])
def test_a_run_that_did_not_train_has_chance_and_no_dead_share(plan, tmp_path, status):
    write_run(plan.config(plan.runs[0], tmp_path), 0.1, status=status, test_accuracy=0.1)
    (first, *_) = read_outcomes(plan, tmp_path)
    assert first.status == status and first.layer == "" and first.score == 0.1
    assert {name: list(values) for name, values in first.values.items()} == {
        "accuracy": [0.1],
        "nll": [pytest.approx(math.log(10))],
    }


def test_predictions_of_other_images_than_the_result_are_damage(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, 0.9, data={**FACTS, "test": 359})
    (first, *_) = read_outcomes(plan, tmp_path)
    assert first.status == "damaged"
    assert first.reason == "predictions.npz cannot be read: it has 360 images, and the test split 359"


def test_a_model_that_is_gone_is_no_damage(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, 0.9)
    (tmp_path / "runs" / plan.runs[0].id / "model.keras").unlink()
    assert read_outcomes(plan, tmp_path)[0].status == "finished"


def test_the_history_of_a_run_that_did_not_train_is_looked_at_too(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, None, status="diverged", test_accuracy=float("nan"))
    place = tmp_path / "runs" / plan.runs[0].id
    assert damage(read_run_files(place), config.settings(), "test_accuracy") == ""
    cut(place / "history.csv")
    assert "history.csv has no values of" in damage(read_run_files(place), config.settings(), "test_accuracy")


def test_statistics_recomputed_after_the_last_epoch_are_no_contradiction(tmp_path):
    plan = with_data(plan_of(recompute_batch_stats="head"), FACTS)
    config = plan.config(plan.runs[0], tmp_path)
    write_run(config, 0.9, test_accuracy=0.91)
    assert read_outcomes(plan, tmp_path)[0].score == 0.91


def test_an_unfinished_run_is_not_damaged(plan, tmp_path):
    config = plan.config(plan.runs[0], tmp_path)
    assert damage(read_run_files(tmp_path / "nowhere"), config.settings(), "test_accuracy") == ""
    RunDirectory(config.directory).begin(config.settings())
    assert (
        damage(read_run_files(tmp_path / "runs" / plan.runs[0].id), config.settings(), "test_accuracy") == ""
    )
