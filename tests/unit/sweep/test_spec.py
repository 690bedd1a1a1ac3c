"""The YAML of a sweep: mistakes are named, arguments go to the right file."""

from pathlib import Path
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.sweep.trials import (
    make_trials,
)
from tests.kits.sweep import load


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"sedes": [0]}, "sedes", "did you mean `seeds`"),
        ({"space": {"train.learning_rate": {"chioce": [1.0]}}}, "space.train.learning_rate.chioce", "`choice`"),
        ({"space": {"train.learning_rate": {}}}, "space.train.learning_rate", "nothing is given"),
        ({"space": {"seed": {"choice": [1]}}}, "space", "list the seeds under `seeds`"),
        ({"space": {"train.learning_rate": {"uniform": [2, 1]}}}, "space.train.learning_rate", "lower number first"),
        (
            {"space": {"train.learning_rate": {"loguniform": [0, 1]}}, "search": "random", "trials": 2},
            "space.train.learning_rate", "no logarithm",
        ),
        ({"space": {"train.learning_rate": {"uniform": [1, 2]}}}, "", "search: random"),
        ({"search": "random"}, "", "trials: n"),
        ({"trials": 3}, "", "leave `trials` out"),
        ({"search": "optuna", "trials": 3}, "", "write `choice` instead of `grid`"),
        ({"seeds": [1, 1]}, "seeds", "once"),
        ({"seeds": [-1]}, "seeds.0", "at least 0"),
        ({"metric": ["forgetting", "a", "b"]}, "metric", ""),
        ({"metric": ["a", "a"]}, "metric", "listed twice"),
        ({"scheduler": "ahsa"}, "scheduler", "did you mean `asha`"),
        ({"concurrency": 0}, "concurrency", "at least 1"),
        ({"sequence": None}, "sequence", "missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_key_and_fix(project: Path, changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(project, **changes)
    assert error.value.key == key
    assert words in str(error.value)
    assert str(project / "ablation.yaml") in str(error.value)


def test_arguments_go_to_the_sweep_or_to_every_sequence(project: Path) -> None:
    source = load(project, "seeds=[5]", "train.micro_rows=2", "metric=a")
    assert source.ablation.seeds == [5]
    assert source.ablation.metric == ["a"]
    assert source.overrides == ["train.micro_rows=2"]
    trials = make_trials(source).made.values()
    assert len(trials) == 4
    assert all(trial.loaded.sequence.train.micro_rows == 2 for trial in trials)
