"""What a model did on each document of a task, as far as errors need it.

All models of a run answer the same documents. The error of a difference between two of them is that of the differences
on each document, which is much smaller than if the models had answered documents of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from continual.forgetting.score import Score

TOLERANCE = 1e-6
"""By how much a score may differ from the one that its documents give: lm-eval adds in another order."""


@dataclass(frozen=True)
class Outcomes:
    """The documents behind one score.

    `documents`: their names, sorted, each once. `influence` [D]: what each adds to the score beyond the mean, so that
    the sum is 0, and the score of a part of the documents is about `score + D / |part| x (sum over the part)`, exactly
    so for a mean. `weight` [D]: the share of each in the score; the sum is 1. `right` [D]: whether the model was right;
    None where a document may be partly right.
    """

    documents: tuple[str, ...]
    influence: np.ndarray
    weight: np.ndarray
    right: np.ndarray | None


def stderr_of(influence: np.ndarray) -> float | None:
    """Return the standard error of a score, or of a weighted sum of scores, from the influences [D] of its documents.

    sqrt(D / (D - 1) x sum of squares); None for a single document.
    """
    count = len(influence)
    return float(np.sqrt(count / (count - 1) * np.sum(influence**2))) if count > 1 else None


Values = Mapping[str, tuple[float, float]]
"""By document: a sum and what it is divided by, e.g. 1 and 1 of a right answer, or minus the nats and the tokens."""


def outcomes_of(score: Score, parts: Sequence[Values]) -> Outcomes | None:
    """Return the outcomes behind a score from the values of its documents.

    The score is the sum of all values divided by the sum of their divisors (a mean, or the loss of a text per token),
    or of a group whose members count equally the mean of that over the members, which are `parts`. Returns None where
    it is neither, such as for a corpus's BLEU: then one document's share is not known.
    """
    pooled = {document: value for part in parts for document, value in part.items()}
    if not pooled or len(pooled) < sum(map(len, parts)):
        return None
    for candidate in ([pooled], parts):
        if all(candidate) and (found := _outcomes(score.score, candidate)):
            return found
    return None


def _outcomes(score: float, parts: Sequence[Values]) -> Outcomes | None:
    names: list[str] = []
    influence, weight, values = [], [], []
    total = 0.0
    for part in parts:
        sums, divisors = np.array(list(part.values()), dtype=np.float64).T
        share = divisors / divisors.sum() / len(parts)
        mean = sums.sum() / divisors.sum()
        total += mean / len(parts)
        names += part
        influence.append((sums - mean * divisors) / divisors.sum() / len(parts))
        weight.append(share)
        values.append(np.stack([sums, divisors]))
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    sums, divisors = np.concatenate(values, axis=1)[:, order]
    sign = 1.0 if abs(total - score) <= TOLERANCE * max(1.0, abs(score)) else -1.0
    if abs(sign * total - score) > TOLERANCE * max(1.0, abs(score)):
        return None
    plain = bool(np.all(divisors == 1.0) and np.isin(sums, (0.0, 1.0)).all()) and sign > 0
    return Outcomes(
        tuple(names[place] for place in order),
        sign * np.concatenate(influence)[order],
        np.concatenate(weight)[order],
        sums == 1.0 if plain else None,
    )


def same_documents(outcomes: Sequence[Outcomes]) -> bool:
    """Return whether all scores come from the same documents."""
    return all(one.documents == outcomes[0].documents for one in outcomes)
