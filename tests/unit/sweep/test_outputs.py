"""The files that a sweep leaves."""

import json
from pathlib import Path

import pytest
from matplotlib.text import Text

from continual.config.load import load_sequence
from continual.show import plots
from continual.sweep.outputs import LINE, best_yaml, draw_front, varied, write_results
from continual.sweep.results import (
    PointResult,
    outcome,
    point_results,
)
from continual.sweep.state import State, Stopped
from tests.kits.sweep import finish, swept


def test_every_trial_that_is_not_done_says_why(project: Path) -> None:
    source, _, trials = swept(project)
    for trial in trials[:3]:
        finish(trial, {"a": 0.5, "b": 0.5}, average_score=0.5, samples=["s1"])
    state = State.load(project, source.ablation)
    state.stopped = {trials[4].name: Stopped(1, 0.02, 0.61)}
    outcomes = [outcome(trial, state.stopped, {trials[3].name: "no memory"}) for trial in trials]
    assert [each.state for each in outcomes] == ["done", "done", "done", "failed", "stopped", "waiting"]
    folder = project / "out"
    folder.mkdir()
    written = write_results(folder, source, outcomes)
    text, points = written.text, written.points
    assert "- temperature=1.3 seed=0: stopped after stage 1: mean score 0.02, below 0.61" in text
    assert "- temperature=1.0 seed=1: failed: no memory" in text
    assert "1 sample set" in text
    assert [point.n for point in points] == [2, 1, 0]
    assert [point.best for point in points] == [True, False, False]
    assert "1 of 2" in text
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((folder / "sweep.json").read_text())
    assert [trial["state"] for trial in content["trials"]] == [each.state for each in outcomes]
    assert content["points"][0]["mean"]["average_score"] == 0.5
    assert content["sample_sets"] == 1


def test_the_best_point_is_a_sequence_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, trials = swept(project)
    for trial, score in zip(trials, (0.1, 0.1, 0.9, 0.8, 0.2, 0.2), strict=True):
        finish(trial, {"a": score, "b": score}, average_score=score)
    outcomes = [outcome(trial, {}, {}) for trial in trials]
    best = next(point for point in point_results(outcomes, ["average_score"]) if point.best)
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    (project / "elsewhere" / "best.yaml").write_text(best_yaml(source, best, outcomes))
    best_sequence = load_sequence("best.yaml").sequence
    wanted = trials[2].loaded.sequence
    assert best_sequence.name == "ab-best"
    assert not best_sequence.track.tags
    assert not best_sequence.track.params
    keep = {"name", "track"}
    assert best_sequence.model_dump(exclude=keep) == wanted.model_dump(exclude=keep)


@pytest.mark.parametrize("count", [3, 9, 30])
def test_names_in_the_plot_of_the_front_do_not_overlap(count: int) -> None:
    """Points that lie on each other have names that do not, within the picture."""
    points = [
        PointResult({"train.learning_rate": 0.001 * (i + 1), "loss": "kl"}, 1, 1,
                    {"old": (0.5 + 0.001 * (i % 3), None), "new": (0.5, 0.01)}, learned=i != 1, front=i == 0)
        for i in range(count)
    ]  # fmt: skip
    points[0].best = True
    assert varied(points[0].point, points) == "0.001"
    with plots.figure(8.0, max(4.8, 1.2 + LINE * count)) as figure:
        axes = figure.subplots()
        draw_front(points, axes)
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        assert len(boxes) == count
        assert sum("learned little" in text.get_text() for text in axes.texts) == 1
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and 0 <= box.y0 <= box.y1 <= figure.bbox.height
                   for box in boxes)  # fmt: skip
