"""The files that a sweep leaves."""

import json
from pathlib import Path

import pytest

from continual.config.load import load_sequence
from continual.sweep.outputs import best_yaml, write_results
from continual.sweep.results import (
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
    text, points = write_results(folder, source, outcomes)
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
