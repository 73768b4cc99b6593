"""`compare`: the plan, the pairing by seed, the looks, the verdict and the files are those of `bnhead study`.

A run is repeated from its beginning if it was stopped; finished runs are kept.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from bnhead.comparison.data import ComparedData
from bnhead.comparison.model import Builder
from bnhead.comparison.plan import check_settings, comparison_plan, named_builders
from bnhead.comparison.run import finish_runs
from bnhead.studies.study_verdict import Verdict, read_verdict


def compare(
    build: Callable[[str, int], keras.Model] | None = None,
    data: Any = None,
    heads: Sequence[str] = (),
    *,
    builders: Mapping[str, Builder] | None = None,
    control: str = "",
    seeds: int | Sequence[int] = (10, 20, 40),
    epochs: int = 10,
    batch_size: int = 128,
    metric: str = "",
    better: str = "higher",
    delta: float = 0.0,
    alpha: float = 0.05,
    question: str = "",
    dir: str = "studies/compare",
    progress: bool | None = None,
    fit: Mapping[str, Any] | None = None,
) -> Verdict:
    """Trains every head with every seed, in this process, and returns the verdict.

    The same call goes on with a study that was stopped. Before `build` is called, Keras' random seed is set
    from the run's seed, and again before training. If the training data are arrays or a name, runs of one
    seed see the same batches, whatever their heads have drawn; a `tf.data.Dataset` is read as it comes.

    Args:
        build: `(head, seed) -> compiled keras.Model`; the head is one of `heads`, any text.
        data: `(train, test)`, each `(x, y)` arrays or a `tf.data.Dataset` of batches `(x, y)`; or the name of
            a data set, as of `--dataset`. Test data must fit in memory. `batch_size` is for arrays and names.
        heads: the control first.
        builders: instead of `build` and `heads`: name -> function of the seed that returns a compiled model.
        control: another head as control.
        seeds: number of seeds, or a list of looks: the study is judged after each of these numbers of seeds,
            and stops at the first that decides.
        epochs: of each run.
        batch_size: of training.
        metric: "accuracy", "nll", "r2" or "dead_share"; or a metric that the model was compiled with, for
            which `delta` is needed. "" is accuracy for classes, else R^2.
        better: "higher" or "lower", for a metric of the model.
        delta: the margin: a smaller difference is not material. 0 is the usual one of the metric.
        alpha: error rate.
        question: one sentence, for the report.
        dir: directory of the study. It holds what `bnhead study` writes, the report too.
        progress: whether to show a bar; None shows one on a terminal.
        fit: further arguments of `model.fit`, such as `class_weight`.

    Returns:
        The verdict: it prints, and has `to_frame`, `plot` and the directory's `report.html`.

    Raises:
        UsageError: arguments that do not fit, or a model that is not compiled.
        RunDirectoryError: `dir` holds another study; the message names the difference: the model of a
            head, the data, a setting.
        StudyError: three runs in a row failed alike.
    """
    builders = named_builders(build, heads, builders, control)
    check_settings(better, epochs=epochs, batch_size=batch_size)
    data, fit = ComparedData.of(data, batch_size), dict(fit or {})
    plan = comparison_plan(
        builders, data, seeds=seeds, epochs=epochs, batch_size=batch_size, metric=metric, better=better,
        delta=delta, alpha=alpha, question=question, fit=fit,
    )  # fmt: skip
    finish_runs(plan, pathlib.Path(dir), builders, data, fit, progress)
    return read_verdict(pathlib.Path(dir))
