"""The corrected loss of simulated models: no bias where nothing is lost, intervals that hold the truth as they say."""

import numpy as np
import pytest
from scipy.stats import norm

from continual.forgetting.outcomes import Outcomes, stderr_of
from continual.forgetting.paired import Paired
from continual.forgetting.significance import Z95

REPEATS, DOCUMENTS = 1000, 256
TRUE = {
    "nothing is lost": lambda stages: np.full(stages + 1, 0.8),
    "lost in the end": lambda stages: np.append(np.full(stages, 0.8), 0.7),
    "lost little by little": lambda stages: np.linspace(0.9, 0.6, stages + 1),
}


def answers(true, correlation, random):
    """Right or wrong [stages, D]: documents are easy or hard for all stages alike, as far as they are correlated."""
    easy = random.standard_normal((1, DOCUMENTS))
    own = random.standard_normal((len(true), DOCUMENTS))
    return np.sqrt(correlation) * easy + np.sqrt(1 - correlation) * own < norm.ppf(true)[:, None]


def paired(right):
    names = tuple(f"{number:03d}" for number in range(right.shape[1]))
    weight = np.full(right.shape[1], 1 / right.shape[1])
    scores = right.mean(1)
    outcomes = [Outcomes(names, (row - mean) * weight, weight, row) for row, mean in zip(right, scores, strict=True)]
    return Paired(scores.tolist(), outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("stages", [2, 20])
@pytest.mark.parametrize("kind", TRUE)
def test_intervals_hold_the_truth(kind, stages, correlation):
    true = TRUE[kind](stages)
    lost = true[:-1].max() - true[-1]
    random = np.random.default_rng(stages)
    held, corrected, naive = 0, [], []
    for _ in range(REPEATS):
        loss = paired(answers(true, correlation, random)).loss(0, stages)
        corrected.append(loss.corrected)
        naive.append(loss.value)
        held += abs(loss.corrected - lost) <= Z95 * loss.corrected_stderr
    assert 0.92 <= held / REPEATS <= 0.97, f"{held / REPEATS:.3f} of the intervals hold the truth"
    if kind == "nothing is lost":
        sure = 4 * np.std(corrected) / np.sqrt(REPEATS)
        assert abs(np.mean(corrected)) < sure, "the corrected loss is biased"
        assert np.mean(naive) > sure, "the loss as it is defined is biased here; else nothing was to be corrected"


@pytest.mark.slow
def test_intervals_of_unpaired_scores_would_be_too_wide():
    """Why errors are paired: at this correlation the error as if scores were independent is far above the true one."""
    true = np.array([0.8, 0.8])
    random = np.random.default_rng(0)
    found = [paired(answers(true, 0.8, random)) for _ in range(REPEATS)]
    spread = np.std([one.scores[0] - one.scores[1] for one in found])
    alone = [[stderr_of(outcome.influence) or 0.0 for outcome in one.outcomes] for one in found]
    independent = np.mean([np.hypot(errors[0], errors[1]) for errors in alone])
    pairs = np.mean([one.stderr({0: 1.0, 1: -1.0}) for one in found])
    assert independent > 1.4 * spread
    assert pairs == pytest.approx(spread, rel=0.07)
