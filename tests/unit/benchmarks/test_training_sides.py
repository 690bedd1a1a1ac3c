"""Both sides of the measurements of training do equal work, and the measurements run at tiny sizes."""

import math
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.throughput import examples, goals, losses, replay, sides, steps, training
from continual.training.losses.kinds import Nll


def test_rows_restart_with_every_document() -> None:
    rows = steps.packed(3, 40, 50, 16, seed=1)
    starts = rows["positions"] == 0
    assert rows["ids"].shape == (3, 40)
    assert starts[:, 0].all()
    assert torch.equal(starts, rows["weights"] == 0)
    for row in starts:
        lengths = row.nonzero().squeeze(-1).diff()
        assert int(lengths.min()) >= 4
        assert int(lengths.max()) <= 16


def test_both_loops_make_the_same_steps() -> None:
    """After three steps of each from the same weights the losses and all weights are equal, up to rounding."""
    case = steps.CASES["260k"].tiny()
    models = [case.model(), case.model()]
    ours = steps.our_step(models[0], case.train, [steps.stream("task", Nll(), case.rows)])
    bare = steps.bare_step(models[1], case.train)
    for seed in range(3):
        rows = case.batch(seed)
        record: Any = ours({"task": rows})
        assert record[0]["loss"]["task"] == pytest.approx(bare(rows), rel=1e-5)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", losses.KINDS)
def test_both_sides_of_a_loss_compute_it(kind: str) -> None:
    values = [losses.step_of(kind, side, tiny=True)[0]() for side in (losses.CONTINUAL, losses.PLAIN)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert values[0] > 0


def test_a_cached_teacher_leaves_a_tenth_to_the_tokens_that_are_not_stored() -> None:
    rows = steps.packed(2, 32, 50, 16, seed=0)
    columns = steps.likeliest(rows, 50, 8)
    assert columns["top_logprobs"].exp().sum(-1).numpy() == pytest.approx(0.9, rel=1e-5)
    assert columns["top_ids"].sort(-1).values.diff(dim=-1).min() > 0


def test_steps_take_turns() -> None:
    order: list[str] = []
    found = sides.taking_turns({name: partial(order.append, name) for name in "ab"}, 2, warm_up=1)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert all(numbers["seconds"] >= 0 for numbers in found.values())


def test_the_peak_of_memory_is_that_of_what_runs() -> None:
    assert sides.peak_mib(lambda: None) < 40
    assert sides.peak_mib(lambda: torch.ones(64 * 2**18)) == pytest.approx(64, abs=8)


@pytest.mark.parametrize("name", replay.COMPARISONS)
def test_every_comparison_of_replay_runs(name: str) -> None:
    of = replay.COMPARISONS[name]
    assert list(replay.both(name, tiny=True)) == [of.of, of.to]
    assert replay.memory(name, of.of, tiny=True)["mib"] >= 1


def test_tables_and_goals_name_every_ratio() -> None:
    ratio = {"median": 0.99, "lowest": 0.9, "highest": 1.1, "rounds": [0.99]}
    found: dict[str, Any] = {
        "goals": training.GOALS,
        "models": {
            name: {"sides": {side: {"median": {"rate": 5.0}} for side in (training.CONTINUAL, training.BARE)},
                   "rate": ratio, "masked": ratio}
            for name in training.GOALS
        },
    }  # fmt: skip
    assert training.table(found).count("\n| ") == 2
    assert [line[3:] for line in goals.training(found)] == [("0.990", True), ("0.990", False)]
    two = {"goals": examples.GOALS, "useful": {side: {"median": 1.2} for side in examples.GOALS}}
    assert [line[2:] for line in goals.examples(two)] == [("≥ 1.3", "1.20", False), ("≥ 1.1", "1.20", True)]


def test_all_examples_are_short() -> None:
    case = steps.CASES["260k"]
    made = examples.examples(case)
    lengths = [len(example) for example in made]
    assert (min(lengths), max(lengths)) == examples.LENGTHS
    # Enough for all updates, if every token of a row is of an example.
    assert sum(lengths) > case.tokens * (case.steps + examples.WARM_UP)
    assert math.isclose(sum(lengths) / len(made), examples.MEAN, rel_tol=0.05)
