"""The figures against those of Avalanche, an implementation of other people (`make avalanche` fetches it).

Its metrics do not use torchvision, which its package imports and which lies beside no CPU build of torch: empty modules
stand for it while the metrics are imported.
"""

import importlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from continual.forgetting import Score, StageScores, figures
from tests.conftest import ROOT

FOLDER = ROOT / ".venv" / "avalanche"
ABSENT = (
    "torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.datasets.folder",
    "avalanche.benchmarks", "avalanche.evaluation.metrics",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="`make avalanche` fetches what figures are compared with")


@pytest.fixture(scope="module")
def avalanche() -> Iterator[Any]:
    """Avalanche's metrics of forgetting and of forward transfer, as two modules."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(FOLDER))
        package = FOLDER / "avalanche" / "evaluation"
        for name in ABSENT:
            monkeypatch.setitem(sys.modules, name, MagicMock())
        # The packages themselves, without what their `__init__` imports.
        for name, path in (("avalanche", package.parent), ("avalanche.evaluation", package)):
            module = type(sys)(name)
            module.__path__ = [str(path)]
            monkeypatch.setitem(sys.modules, name, module)
        metrics = type(sys)("avalanche.evaluation.metrics")
        metrics.__path__ = [str(package / "metrics")]
        metrics.__dict__.update(TaskAwareAccuracy=MagicMock, Mean=MagicMock)
        monkeypatch.setitem(sys.modules, metrics.__name__, metrics)
        yield (
            importlib.import_module("avalanche.evaluation.metrics.forgetting_bwt"),
            importlib.import_module("avalanche.evaluation.metrics.forward_transfer"),
        )
        for name in [name for name in sys.modules if name.startswith("avalanche")]:
            monkeypatch.delitem(sys.modules, name, raising=False)


def ours(scores: np.ndarray) -> dict[str, Any]:
    """Our figures of scores [stages + 1, stages]: row 0 is the start model, task k is learned in stage k + 1."""
    tasks = [f"task{number}" for number in range(scores.shape[1])]
    matrix = [
        StageScores(
            stage, "", {task: Score(float(value), unit="accuracy") for task, value in zip(tasks, row, strict=True)}
        )
        for stage, row in enumerate(scores)
    ]
    return figures(matrix, [[task] for task in tasks], [])


def test_of_one_stage_nothing_can_be_forgotten_or_transferred(avalanche: Any) -> None:
    metric = avalanche[0].Forgetting()
    metric.update(0, 0.7, initial=True)
    found = ours(np.array([[0.1], [0.7]]))
    assert metric.result() == {}
    assert (found["forgetting"], found["backward_transfer"], found["forward_transfer"]) == (None, None, None)


@pytest.mark.parametrize("stages", [2, 3, 7, 20])
@pytest.mark.parametrize("seed", range(5))
def test_transfer_is_avalanches(avalanche: Any, stages: int, seed: int) -> None:
    forgetting, forward = avalanche
    scores = np.random.default_rng(seed).random((stages + 1, stages))
    backward, ahead = forgetting.BWT(), forward.ForwardTransfer()
    for task in range(stages):
        backward.update(task, scores[task + 1, task], initial=True)
        if task < stages - 1:  # as its plugin: the experience that was just learned has no second value
            backward.update(task, scores[-1, task])
        ahead.update(task, scores[0, task], initial=True)
        if task:
            ahead.update(task, scores[task, task])
    found = ours(scores)
    assert found["backward_transfer"] == pytest.approx(np.mean(list(backward.result().values())), abs=1e-12)
    assert found["forward_transfer"] == pytest.approx(np.mean(list(ahead.result().values())), abs=1e-12)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("stages", [2, 3, 7, 20])
@pytest.mark.parametrize("seed", range(5))
def test_forgetting_is_avalanches_from_the_best_score(avalanche: Any, stages: int, seed: int, sinks: bool) -> None:
    """Avalanche compares with the score that it is given first: when learned (`sinks`: that is the best one), or, as
    in Chaudhry et al. 2018, the best one before the last.
    """
    scores = np.random.default_rng(seed).random((stages + 1, stages))
    for task in range(stages):
        if sinks:
            scores[task + 1 :, task] = np.sort(scores[task + 1 :, task])[::-1]
    metric = avalanche[0].Forgetting()
    for task in range(stages):
        first = scores[task + 1, task] if sinks else scores[task + 1 : max(task + 2, stages), task].max()
        metric.update(task, first, initial=True)
        if task < stages - 1:
            metric.update(task, scores[-1, task])
    expected = metric.result()
    found = ours(scores)
    assert found["forgetting"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    for task, value in expected.items():
        assert found["forgetting_by_task"][f"task{task}"] == pytest.approx(value, abs=1e-12)
