"""Kills training at random instants and holds what it ends in against a run that was never stopped.

`python -m tests.training.kills` does so 50 times and says how many ended in the same bits; `--runs=N` and
`--seed=N` change how many and which instants. `test_resume.py` does a few.
"""

import contextlib
import csv
import json
import multiprocessing
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

import numpy as np

HEADS = ("fc", "bn_fc", "gbn16_fc", "dropout0.5_fc")
SETTINGS = {"backbone": "resnet8", "fc_units": 32, "batch_size": 256, "epochs": 4, "warmup_epochs": 0.5}
UNLIKE = ("images_per_second",)  # what two runs of one config do not share


def evidence(workdir: str) -> dict:
    """Everything that a finished run left and that is to be the same, however often it was stopped."""
    import keras

    from bnhead.runs import checkpoints

    root = pathlib.Path(workdir)
    newest = max((root / checkpoints.FOLDER).glob("step-*"))
    last = checkpoints.decode_checkpoint(newest.read_bytes())
    rows = list(csv.DictReader((root / "history.csv").read_text().splitlines()))
    model = keras.saving.load_model(root / "model.keras")
    return {
        **{f"state {name}": array for name, array in last.arrays.items()},
        **{f"model {weight.path}": np.array(weight) for weight in model.weights},
        "step": last.step,
        "history": [{key: value for key, value in row.items() if key not in UNLIKE} for row in rows],
        "result": json.loads((root / "result.json").read_text()),
        "dead units": last.records["Evaluation"],
        "events": {run: events(root / run) for run in ("train", "test", "units")},
    }


def events(folder: pathlib.Path) -> list:
    """Tag, step and content of every summary, in the order in which TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (value.tag, event.step, value.tensor.SerializeToString())
        for path in sorted(folder.glob("events*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if not value.tag.endswith(UNLIKE)
    ]


def unlike(first: dict, second: dict) -> list[str]:
    """The names of what differs by a bit."""
    names = sorted({**first, **second})
    return [name for name in names if not _equal(first.get(name), second.get(name))]


def _equal(first, second) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    return json.dumps(first, default=repr) == json.dumps(second, default=repr)


def run(workdir: str, data_dir: str, head: str, fatal: int | None = None, **settings) -> None:
    """Trains, in a process of its own.

    Args:
        workdir, data_dir, head, settings: the config's.
        fatal: number of the file operation in the midst of which the process kills itself; None for none.
    """
    from bnhead.training import TrainConfig, train

    if fatal is not None:
        _kill_in_file_operation(fatal)
    config = TrainConfig(**{**SETTINGS, "workdir": workdir, "data_dir": data_dir, "head": head, **settings})
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        train(config)


def _kill_in_file_operation(fatal: int) -> None:
    """Ends this process in the `fatal`-th write, fsync, rename or removal, which is done by halves."""
    remaining = [fatal]

    def deadly(function, halfway):
        def call(*arguments, **keywords):
            remaining[0] -= 1
            if not remaining[0]:
                halfway(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    write = pathlib.Path.write_bytes
    nothing = lambda *arguments: None  # noqa: E731
    pathlib.Path.write_bytes = deadly(write, lambda path, content: write(path, content[: len(content) // 2]))
    os.fsync, os.replace = deadly(os.fsync, nothing), deadly(os.replace, nothing)
    pathlib.Path.unlink = deadly(pathlib.Path.unlink, nothing)


def context():
    """Processes that are forked from one that has imported TensorFlow, and done nothing with it."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["bnhead.training.run", "bnhead.models"])
    return forked


def killed_and_finished(
    workdir: str, data_dir: str, head: str, draw: random.Random, seconds: float, kills: int = 3, **settings
) -> list[str]:
    """Starts a run again and again until it is done; all but the last process are killed.

    Args:
        workdir, data_dir, head, settings: the config's.
        draw: draws how each is killed: after a time, or in the midst of a file operation.
        seconds: up to how long after its start.
        kills: how many are killed, unless the run is done before.

    Returns:
        How each process ended.
    """
    ended = []
    for number in range(kills + 1):
        method = draw.choice(("time", "file")) if number < kills else "never"
        fatal = draw.randint(1, 120) if method == "file" else None
        delay = draw.uniform(0.5, seconds) if method == "time" else None
        process = context().Process(target=run, args=(workdir, data_dir, head, fatal), kwargs=settings)
        process.start()
        process.join(delay)
        if process.is_alive():
            process.kill()
        process.join()
        ended.append(f"{method} {fatal or round(delay or 0, 2)}: {process.exitcode}")
        if process.exitcode == 0:
            break
    return ended


def main(arguments: list[str]) -> int:
    """Runs the long form; 0 if every run ended in the bits of the one that was not stopped."""
    options = dict(argument.lstrip("-").split("=") for argument in arguments)
    runs, draw = int(options.get("runs", 50)), random.Random(int(options.get("seed", 0)))
    data_dir = options.get("data_dir", "")
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted = {}
        for head in HEADS:
            start = time.perf_counter()
            process = context().Process(target=run, args=(f"{folder}/{head}", data_dir, head))
            process.start()
            process.join()
            uninterrupted[head] = evidence(f"{folder}/{head}"), time.perf_counter() - start
        for number in range(runs):
            head = HEADS[number % len(HEADS)]
            expected, seconds = uninterrupted[head]
            workdir = f"{folder}/{number}"
            ended = killed_and_finished(workdir, data_dir, head, draw, seconds, checkpoint_seconds=0.0)
            different = unlike(expected, evidence(workdir))
            equal += not different
            print(f"{number + 1:>3} {head:<14} {different or 'equal'}  {ended}", flush=True)
    print(f"{equal} of {runs} runs ended in the bits of one that was never stopped")
    return 0 if equal == runs else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
