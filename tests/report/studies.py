"""Study directories made of drawn numbers, of several shapes, as `bnhead study` leaves them."""

import csv
import hashlib
import itertools
import json
import pathlib

import numpy as np
from scipy import stats

EPOCHS = 15
SETTINGS = {
    "dataset": "digits", "task": "classification", "image_size": 0, "augment": "crop", "cutout": 0,
    "mixup": 0.0, "backbone": "resnet20", "weights": "", "head": "fc", "fc_units": 256,
    "fc_activation": "relu", "epochs": EPOCHS, "batch_size": 128, "learning_rate": 0.1, "warmup_epochs": 2.0,
    "momentum": 0.9, "weight_decay": 0.001, "seed": 0, "mixed_precision": False, "test_corruption": "none",
}  # fmt: skip
ENVIRONMENT = {
    "started": "2026-01-01T00:00:00+00:00", "python": "3.11.9", "bnhead": "0.1.0", "tensorflow": "2.21.0",
    "keras": "3.15.1", "backend": "tensorflow", "devices": ["CPU"], "platform": "Linux-6.1-x86_64",
    "seconds": 12.3, "sessions": [{"started": "2026-01-01T00:00:00+00:00", "step": 0}],
}  # fmt: skip
CONTROLS = ("gbn16_fc", "fbn_fc", "center_fc", "scale_fc", "noise_fc", "ln_fc", "bn_fc")
PLACES = {"fc": "", "bn_gap_fc": "P0", "bn_fc": "P1", "fc_bn": "P2", "fc_out_bn": "P3"}
SHAPES = ("two", "placement", "controls", "learning_rate", "width", "damaged", "strange", "regression")


def write(directory: pathlib.Path, shape: str = "two", seed: int = 0, seeds: int = 10) -> pathlib.Path:
    """Writes a study of one of `SHAPES` and returns its directory."""
    random = np.random.default_rng(seed)
    cells, pairs = _shape(shape)
    settings = {**SETTINGS, **_base(shape)}
    primary = "test_r2" if shape == "regression" else "test_accuracy"
    plan = {
        "format": 1,
        "study": "bn_before_fc" if shape == "two" else shape,
        "question": "Does a batch norm before the last FC layer help, hurt or make no difference?",
        "primary": primary,
        "chance": 0.1 if primary == "test_accuracy" else 0.0,
        "delta": 0.01,
        "alpha": 0.05,
        "seeds": list(range(seeds)),
        "exclusions": "none; a run that diverges or fails to learn is scored at chance",
        "cells": cells,
        "comparisons": pairs,
        "settings": {k: v for k, v in settings.items() if k not in ("seed", "head")},
        "runs": [],
        "code": {"bnhead": "0.1.0", "source_sha256": "5ad1" * 16},
    }
    if shape == "strange":
        plan["study"], plan["question"] = "größe <b>&</b>", "Hilft's? <script>alert(1)</script> | `x` *y*"
    scores = {}
    for cell in cells:
        for s in range(seeds):
            identity = hashlib.sha256(f"{cell['name']}/{s}".encode()).hexdigest()[:12]
            plan["runs"].append({"id": identity, "cell": cell["name"], "seed": s})
            own = {**settings, **cell["settings"], "seed": s}
            scores[cell["name"], s] = _run(directory / "runs" / identity, own, cell, s, random, plan, shape)
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    plan["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    verdict = _verdict(plan, scores, shape)
    if shape == "damaged":
        _damage(directory, plan, verdict)
    dump(directory / "plan.json", plan)
    dump(directory / "verdict.json", verdict)
    return directory


def dump(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cell(name, head, stratum=None, placement=""):
    return {"name": name, "head": head, "placement": placement, "stratum": stratum or {},
            "settings": {"head": head, **(stratum or {})}}  # fmt: skip


def _pair(control, treatment, stratum=None, name=None):
    return {"name": name or f"{treatment} against {control}", "control": control, "treatment": treatment,
            "stratum": stratum or {}}  # fmt: skip


def _shape(shape):
    if shape == "placement":
        cells = [_cell(head, head, placement=place) for head, place in PLACES.items()]
        return cells, [_pair("fc", head) for head in list(PLACES)[1:]]
    if shape == "controls":
        return [_cell(h, h) for h in ("fc", *CONTROLS)], [_pair("fc", head) for head in CONTROLS]
    if shape in ("learning_rate", "width"):
        key = "learning_rate" if shape == "learning_rate" else "fc_units"
        levels = (0.01, 0.03, 0.1, 0.3, 1.0) if shape == "learning_rate" else (32, 64, 128, 256, 512, 1024)
        cells, pairs = [], []
        for level in levels:
            names = [f"{head}, {key} {level:g}" for head in ("fc", "bn_fc")]
            cells += [_cell(n, h, {key: level}) for n, h in zip(names, ("fc", "bn_fc"), strict=True)]
            pairs.append(_pair(*names, {key: level}, f"bn_fc against fc, {key} {level:g}"))
        return cells, pairs
    if shape == "strange":
        names = "<script>alert('fc')</script>", "höher & <i>weiter</i> | `code` *x*"
        return [_cell(names[0], "fc"), _cell(names[1], "fastai", placement="P1+P2")], [_pair(*names)]
    return [_cell("fc", "fc"), _cell("bn_fc", "bn_fc", placement="P1")], [_pair("fc", "bn_fc")]


def _base(shape):
    return {"task": "regression", "dataset": "digits_rotation"} if shape == "regression" else {}


def _run(directory, settings, cell, seed, random, plan, shape):
    """Writes a run and returns its score, None where it diverged."""
    directory.mkdir(parents=True)
    rate, width = settings["learning_rate"], settings["fc_units"]
    lift = 0.004 * sum(map(ord, cell["head"])) % 0.011 - 0.003 if cell["head"] != "fc" else 0
    end = 0.982 + lift - 0.004 * abs(np.log10(rate / 0.1)) + random.normal(0, 0.003)
    end = min(end, 1.0)
    silent = 0.45 + 0.03 * np.log2(width / 256) + 0.08 * (cell["head"] != "fc") + random.normal(0, 0.01)
    dead = max(
        0, 0.02 + 0.02 * np.log2(width / 256) - 0.008 * (cell["head"] != "fc") + random.normal(0, 0.002)
    )
    diverged = shape in ("learning_rate", "damaged") and rate >= 1 - 0.9 * (shape == "damaged") and (
        cell["head"] == "bn_fc" and seed in (2, 5, 7)[: 1 if shape == "damaged" else 3]
    )  # fmt: skip
    rows = []
    for epoch in range(1, EPOCHS + 1):
        test = end - (end - 0.12) * np.exp(-0.9 * (epoch - 1)) + random.normal(0, 0.012 / epoch)
        row = {"epoch": epoch, "accuracy": test - 0.01, "loss": 2.3 * np.exp(-0.3 * epoch),
               "test_accuracy": min(test, 1.0), "test_loss": 2.2 * np.exp(-0.28 * epoch) + 0.05,
               "dead/head_fc/per_input": silent * (0.7 + 0.3 * (1 - np.exp(-0.5 * epoch))),
               "dead/head_fc/dataset": dead * (1 - np.exp(-epoch / 5)),
               "learning_rate": rate, "images_per_second": random.uniform(500, 700)}  # fmt: skip
        if epoch == EPOCHS:
            row["test_accuracy"] = end
        if shape == "regression":
            row["test_r2"] = row.pop("test_accuracy")
        if diverged and epoch > 4:
            row |= dict.fromkeys(("loss", "test_loss", "test_accuracy"), float("nan"))
        rows.append({key: float(value) for key, value in row.items()} | {"epoch": epoch})
        if diverged and epoch == 5:
            break
    with open(directory / "history.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    last = rows[-1]
    primary = plan["primary"]
    result = {"status": "diverged" if diverged else "finished", "epochs": len(rows),
              primary: None if diverged else last[primary],
              "test_loss": None if diverged else last["test_loss"],
              **{key: value for key, value in last.items() if key.startswith("dead/")},
              "dead/head_fc/inputs": 360, "dead/head_fc/bound": 3 / 360,
              "parameters": 290000, "data": {"name": settings["dataset"], "train": 1437, "test": 360,
              "train_sha256": "ab" * 32, "test_sha256": "cd" * 32},
              "head": f"2x2x64 -> gap -> 64 -> fc({width}, relu) -> out(10)"}  # fmt: skip
    dump(directory / "config.json", settings)
    dump(directory / "environment.json", ENVIRONMENT)
    dump(directory / "result.json", result)
    return result[primary]


def _verdict(plan, scores, shape):
    seeds, chance, primary = plan["seeds"], plan["chance"], plan["primary"]
    lost = [run for run in plan["runs"] if scores[run["cell"], run["seed"]] is None]
    compared = [_comparison(pair, seeds, scores, chance, plan["delta"]) for pair in plan["comparisons"]]
    for own, p in zip(compared, stats.false_discovery_control([c["p"] for c in compared]), strict=True):
        own["p_holm"] = float(p)
    cells = []
    for cell in plan["cells"]:
        own = np.array([_scored(scores[cell["name"], s], chance) for s in seeds])
        cells.append({"name": cell["name"], "n": len(own), "mean": own.mean(), "sd": own.std(ddof=1),
                      "min": own.min(), "max": own.max(),
                      "dead": {"head_fc/per_input": {"mean": 0.515, "sd": 0.012},
                               "head_fc/dataset": {"mean": 0.021, "sd": 0.004}}})  # fmt: skip
    word = compared[0]["word"] if len(compared) == 1 else "UNDECIDED"
    sentence = compared[0]["sentence"]
    if len(compared) > 1:
        sentence = f"On digits with resnet20, {len(compared)} comparisons over {len(seeds)} seeds: {word}."
    if shape == "strange":
        word, sentence = "INVALID", "On größe, <script>alert(2)</script>: cells are missing: INVALID."
    n = len(plan["runs"])
    return {
        "format": 1,
        "plan_sha256": plan["sha256"],
        "exploratory": ["seeds 10 to 14 were added later", "delta was 0.005"] if shape == "strange" else [],
        "word": word,
        "sentence": sentence.replace("test accuracy", primary.replace("_", " ")),
        "flow": {"planned": n, "started": n, "finished": n - len(lost), "diverged": len(lost),
                 "failed_to_learn": 0, "failed": 0, "missing": 0, "analysed": n},
        "exclusions": [
            {"run": r["id"], "cell": r["cell"], "seed": r["seed"], "reason": "diverged, scored at chance"}
            for r in lost
        ],
        "comparisons": compared,
        "cells": [{k: float(v) if isinstance(v, np.floating) else v for k, v in c.items()} for c in cells],
        "width_law": _width_law(plan, seeds) if shape == "width" else [],
    }  # fmt: skip


def _scored(value, chance):
    return chance if value is None else value


def _comparison(pair, seeds, scores, chance, delta):
    control = [_scored(scores[pair["control"], s], chance) for s in seeds]
    treatment = [_scored(scores[pair["treatment"], s], chance) for s in seeds]
    values = np.subtract(treatment, control)
    n, mean, error = len(values), values.mean(), stats.sem(values)
    bounds = [float(v) for v in stats.t.interval(0.95, n - 1, mean, error)]
    narrow = [float(v) for v in stats.t.interval(0.90, n - 1, mean, error)]
    diverged = {"control": 0, "treatment": sum(scores[pair["treatment"], s] is None for s in seeds)}
    if diverged["treatment"] >= 0.2 * n:
        word = "UNSTABLE"
    elif max(map(abs, narrow)) < delta:
        word = "NO MATERIAL DIFFERENCE"
    elif bounds[0] > 0 or bounds[1] < 0:
        word = "HELPS" if mean > 0 else "HURTS"
    else:
        word = "UNDECIDED"
    sentence = (
        f"On digits with resnet20, {pair['name']}: test accuracy {100 * mean:+.2f} points (95 % interval "
        f"{100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f}), {n} seeds: {word}."
    )
    return {
        **pair, "word": word, "sentence": sentence, "seeds": seeds, "control_scores": control,
        "treatment_scores": treatment, "differences": values.tolist(), "n": n, "mean": float(mean),
        "sd": float(values.std(ddof=1)), "interval": bounds, "p": _two_sided(mean / error, n),
       
        "p_holm": None, "p_holm_tost": 0.04, "interval_tost": narrow, "p_tost": 0.03, "diverged": diverged,
        "more_seeds": 14 if word == "UNDECIDED" else None, "converged": None,
    }  # fmt: skip


def _two_sided(t, n):
    return float(2 * stats.t.sf(abs(t), n - 1))


def _width_law(plan, seeds):
    random = np.random.default_rng(1)
    laws = []
    for head, figure in itertools.product(("fc", "bn_fc"), ("per_input", "dataset")):
        start, points = 0.4 if figure == "per_input" else 0.1, []
        for cell, s in itertools.product(plan["cells"], seeds):
            if cell["head"] == head:
                width = cell["settings"]["fc_units"]
                share = np.clip(start + 0.04 * np.log2(width / 128) + random.normal(0, 0.015), 0, 1)
                points.append({"fc_units": width, "seed": s, "share": float(share)})
        law = {"head": head, "layer": "head_fc", "figure": figure, "slope": 0.17, "interval": [0.15, 0.19]}
        laws.append({**law, "n": len(seeds), "points": points})
    return laws


def _damage(directory, plan, verdict):
    """One run gone, one half-written, one without a history."""
    runs = plan["runs"]
    gone, half, bare = (directory / "runs" / runs[i]["id"] for i in (3, 6, 14))
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    (half / "result.json").write_text('{"status": "fin')
    (bare / "history.csv").write_text("epoch,loss\n1")
    for index, reason in ((3, "missing"), (6, "result.json cannot be read")):
        run = runs[index]
        own = {"run": run["id"], "cell": run["cell"], "seed": run["seed"], "reason": reason}
        verdict["exclusions"].append(own)
    verdict["flow"] |= {"started": 19, "finished": 17, "failed": 1, "missing": 1, "analysed": 18}
    for one in verdict["comparisons"]:
        for index in (3, 6):
            for key in ("control_scores", "treatment_scores", "differences"):
                one[key][index] = None
    environment = directory / "runs" / runs[0]["id"] / "environment.json"
    dump(environment, {**ENVIRONMENT, "tensorflow": "2.20.0", "devices": ["GPU"]})
