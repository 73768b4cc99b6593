"""Copies the small files of a study to docs/answer/: `python docs/keep_study.py studies/bn_before_fc digits`.

Plan, verdict, and each run's settings, environment, history, predictions and result: what `bnhead report` and
`bnhead verify` read. Models, checkpoints and event files are left out, and so are their hashes.

Of a study of many runs only plan, verdict and `runs.csv` are kept, under a name such as
`summaries/imbalance_digits`.
"""

import json
import pathlib
import shutil
import sys

ANSWER = pathlib.Path(__file__).resolve().parent / "answer"
OF_STUDY = ("plan.json", "verdict.json")
SUMMARY = (*OF_STUDY, "runs.csv")
OF_RUN = ("config.json", "environment.json", "history.csv", "predictions.npz", "result.json")


def keep(study: pathlib.Path, name: str) -> None:
    """Replaces docs/answer/<name> by the small files of a study, or by its summary (`summaries/<name>`)."""
    shutil.rmtree(ANSWER / name, ignore_errors=True)
    is_summary = name.startswith("summaries/")
    paths = [study / file for file in (SUMMARY if is_summary else OF_STUDY)]
    runs = [] if is_summary else sorted((study / "runs").iterdir())
    paths += [run / file for run in runs for file in OF_RUN]
    for path in paths:
        target = ANSWER / name / path.relative_to(study)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for run in runs:
        status = json.loads((run / "status.json").read_text())
        status["sha256"] = {file: digest for file, digest in status["sha256"].items() if file in OF_RUN}
        (ANSWER / name / "runs" / run.name / "status.json").write_text(json.dumps(status, indent=2) + "\n")


if __name__ == "__main__":
    keep(pathlib.Path(sys.argv[1]), sys.argv[2])
