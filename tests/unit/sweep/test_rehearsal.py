"""What decides a sample set and a training is known before a start."""

from pathlib import Path
from typing import Any

from continual.sweep.rehearsal import rehearse
from tests.kits.sweep import base_sequence


def shared(project: Path, *changes: str) -> list[Any]:
    return rehearse(base_sequence(project, *changes), [10, 5])


def test_a_sample_set_is_identified_by_what_decides_it(project: Path) -> None:
    plain = shared(project, "mitigation.0.samples=16")
    sets = [next(iter(stage.samples)) for stage in plain]
    assert sets[0] != sets[1]  # of another model
    same = shared(project, "mitigation.0.samples=16", "mitigation.0.weight=2")
    assert set(same[0].samples) == {sets[0]}
    assert set(same[1].samples) != {sets[1]}  # stage 1 was trained with another weight
    for change in ("seed=1", "mitigation.0.top_p=0.5", "generate.engine=vllm", "generate.batch_size=8"):
        other = shared(project, "mitigation.0.samples=16", change)
        assert not {name for stage in other for name in stage.samples} & set(sets), change
    # A set grows: how many are wanted and how they are stored makes no other one, but trains another model.
    for change in ("mitigation.0.samples=17", "generate.shard_samples=8"):
        grown = shared(project, "mitigation.0.samples=16", change)
        assert set(grown[0].samples) == {sets[0]}, change
        assert (grown[0].training == plain[0].training) == (change != "mitigation.0.samples=17")
    assert [stage.training for stage in shared(project, "mitigation.0.samples=16", "train.micro_rows=2")] == [
        stage.training for stage in plain
    ]


def test_what_a_hook_cannot_know_counts_as_a_set_of_its_own(project: Path) -> None:
    stages = shared(project, "mitigation=[{type: contextual, ratio: 0.25}]")
    # contextual reads the task's rows first, which are not there; its own estimate stands for it.
    assert [list(stage.samples.values()) for stage in stages] == [[2 * 10 * 32], [2 * 5 * 32]]
    assert not shared(project, "mitigation=[{type: task_replay, ratio: 0.25}]")[1].samples
