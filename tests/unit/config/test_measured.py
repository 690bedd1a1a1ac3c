"""What a sequence measures, and what each column of its matrix counts as."""

from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.config.measured import Measured, evaluation_tasks, figures_of, measured_keys
from continual.config.schema import Sequence
from continual.forgetting import Score, StageScores
from tests.conftest import ROOT

TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
TEXT = "{name: story, data: {type: text, path: story.txt}}"


def sequence(*overrides: str) -> Sequence:
    return load_sequence(TINY, [f"evaluate.texts=[{TEXT}]", *overrides]).sequence


@pytest.mark.parametrize(
    ("overrides", "old"),
    [
        ((), ["story"]),
        (("evaluate.old_tasks=[arc_easy]",), ["arc_easy"]),
        (("stages.1.tasks=[story]",), []),
    ],
)
def test_old_abilities_are_old_tasks_or_else_texts_that_no_stage_learns(overrides: Any, old: list[str]) -> None:
    assert Measured.of(sequence(*overrides)).old == old


def test_a_column_is_named_once_in_the_order_of_the_sequence() -> None:
    both = sequence("stages.1.tasks=[story, sort]", "evaluate.old_tasks=[arc_easy]")
    assert Measured.of(both).names == ["reversal", "story", "sort", "arc_easy"]
    assert [task.name for task in evaluation_tasks(both)] == ["reversal", "sort", "arc_easy"]
    assert dict(measured_keys(both)) == {
        "stages.0.tasks.0": "reversal",
        "stages.1.tasks.0": "story",
        "stages.1.tasks.1": "sort",
        "evaluate.old_tasks.0": "arc_easy",
    }


def test_a_configuration_file_says_the_same_as_its_sequence() -> None:
    loaded = load_sequence(TINY, [f"evaluate.texts=[{TEXT}]", "evaluate.old_tasks=[arc_easy]"])
    assert Measured.of_config(loaded.resolved) == Measured.of(loaded.sequence)


def test_new_and_earlier_are_the_last_stage_and_those_before_it() -> None:
    measured = Measured([["a", "b"], ["b"], ["c", "a"]], [], [])
    assert measured.new == ["c", "a"]
    assert measured.earlier == ["a", "b"]


def test_figures_use_the_tasks_of_the_sequence() -> None:
    matrix = [
        StageScores(k, f"s{k}", {name: Score(value, unit=unit) for name, value, unit in row})
        for k, row in enumerate(
            [
                [("reversal", 0.0, "accuracy"), ("sort", 0.0, "accuracy"), ("story", -1.0, "nats/token")],
                [("reversal", 1.0, "accuracy"), ("sort", 0.0, "accuracy"), ("story", -1.5, "nats/token")],
                [("reversal", 0.25, "accuracy"), ("sort", 1.0, "accuracy"), ("story", -3.0, "nats/token")],
            ]
        )
    ]
    figures = figures_of(sequence(), matrix)
    assert figures["forgetting"] == pytest.approx(0.75)
    assert figures["forgetting_old"] == pytest.approx(2.0)
