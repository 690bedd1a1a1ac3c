"""What arms keep at equal new score, against a computation document by document."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.pretrained import rates, results
from benchmarks.pretrained.results import CONTEXT_FREE, Models, change, collect_models, mixed, told
from benchmarks.sweeps import Trial
from continual.forgetting import Score
from continual.forgetting.outcomes import outcomes_of

DOCUMENTS = 40
NEW = {"plain": [-1.6, -1.2, -1.0], CONTEXT_FREE: [-1.6, -1.4, -1.1]}
"""New scores of two arms after their start and two stages."""


def made(seed: int) -> tuple[Models, dict[str, np.ndarray]]:
    """Return the models of both arms, and what each was right on, by task: bool [6, DOCUMENTS]."""
    draws = np.random.default_rng(seed)
    right = {task: draws.random((6, DOCUMENTS)) < 0.6 for task in results.TASKS}
    scores, outcomes = {}, {}
    for task, answers in right.items():
        for place, row in enumerate(answers):
            scores[place, task] = score = Score(float(row.mean()), 0.1, DOCUMENTS, "accuracy")
            values = {str(number): (float(answer), 1.0) for number, answer in enumerate(row)}
            found = outcomes_of(score, [values])
            assert found is not None
            outcomes[place, task] = found
    for place, new in enumerate([*NEW["plain"], *NEW[CONTEXT_FREE]]):
        scores[place, results.NEW] = Score(new, 0.01, DOCUMENTS, "nats/token")
    places = {("plain", 0): [0, 1, 2], (CONTEXT_FREE, 0): [3, 4, 5]}
    return Models(scores, results.paired(scores, outcomes, 6), places), right


def test_arms_are_compared_where_both_have_the_new_score() -> None:
    models, _ = made(0)
    assert results.equal_score(models) == -1.1
    assert mixed(models, "plain", -1.1) == pytest.approx({1: 0.5, 2: 0.5})
    assert mixed(models, CONTEXT_FREE, -1.1) == pytest.approx({4: 0.0, 5: 1.0})
    assert mixed(models, CONTEXT_FREE, -1.05) is None


def test_differences_and_errors_are_those_of_the_documents() -> None:
    models, right = made(1)
    plain, replay = mixed(models, "plain", -1.15), mixed(models, CONTEXT_FREE, -1.15)
    assert plain
    assert replay
    means, squares = [], []
    for task in results.TASKS:
        answers = right[task].astype(float)
        at_score = {"plain": 0.75 * answers[1] + 0.25 * answers[2], "replay": answers[4] / 6 + answers[5] * 5 / 6}
        each = at_score["replay"] - at_score["plain"]
        means.append(each.mean())
        squares.append(each.var(ddof=1) / DOCUMENTS)
    value, error = told(models, change(replay, plain, results.TASKS))
    assert value == pytest.approx(np.mean(means))
    assert error == pytest.approx(np.sqrt(np.sum(squares)) / len(results.TASKS))


def test_the_table_tells_every_arm_and_what_plain_lost() -> None:
    models, _ = made(2)
    for place in range(6):
        for task in results.TEXTS:
            models.scores[place, task] = Score(-3.0 - 0.2 * (place in (1, 2)), 0.02, 60, "nats/token")
    found = collect_models(models)
    assert found["arms"]["plain"]["at the end"]["c4"][0] == pytest.approx(-0.2)
    assert found["arms"][CONTEXT_FREE]["more than plain"]["c4"][0] == pytest.approx(0.2)
    assert found["arms"]["plain"][f"less than {CONTEXT_FREE}"]["c4"][0] == pytest.approx(0.2)
    assert found["plain lost, in standard errors"]["c4"] == pytest.approx(0.2 / np.sqrt(2 * 0.02**2))
    lines = results.table(found).splitlines()
    named = [line.split(" | ")[0] for line in lines if line.startswith(("| plain", f"| {CONTEXT_FREE} |"))]
    assert named == ["| plain", f"| {CONTEXT_FREE}", "| plain"]
    assert lines[-1].startswith("What plain lost most clearly, at the end: ")


def test_rates_are_told_in_their_order_with_the_losses_of_their_runs() -> None:
    def trial(rate: float, new: float, lost: float) -> Trial:
        matrix = [{"scores": {results.NEW: {"score": score}}} for score in (-1.8, -new)]
        by_task = dict.fromkeys((*results.TEXTS, results.NEW), lost)
        errors = {"forgetting_old": 0.004, "forgetting_by_task": dict.fromkeys(results.TEXTS, 0.01)}
        summary = {"matrix": matrix, "forgetting_old": lost, "forgetting_by_task": by_task, "stderr": errors}
        return Trial({rates.RATE: rate}, 100, SimpleNamespace(summary=summary))  # type: ignore[arg-type]

    lines = rates.table(rates.collect([trial(1e-4, 1.2, 0.45), trial(2e-5, 0.9, -0.02)])).splitlines()
    assert lines[2].startswith("| 2e-05 | 0.900 | +0.020 ±0.004 | +0.020 ±0.010 |")
    assert lines[3].startswith("| 0.0001 | 1.200 | -0.450 ±0.004 |")
    assert "seed 100: gsm8k in nats per answer token (before: 1.800)" in lines[-1]
