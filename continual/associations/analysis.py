"""How simple the associations are: what few factors explain, who is fragile, who destroys, what similarity tells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from continual.associations.matrix import Associations
from continual.errors import ConfigurationError
from continual.forgetting.completion.factors import leading, squares


@dataclass(frozen=True)
class MeanChange:
    """The mean change of a document over the tasks, or of a task over the documents.

    `index`: its place in the associations. `stderr`: None of a single number.
    """

    name: str
    index: int
    mean: float
    stderr: float | None


def r_squared(change: np.ndarray, ranks: Iterable[int]) -> dict[int, float]:
    """Return by rank k what the best sum of k products of a task's and a document's number explains of changes [M, N].

    It is 1 - ||Z - Z_k||^2 / ||Z - mean(Z)||^2 as in Jin & Ren's code: Z_k is from the singular value decomposition of
    Z itself, while the mean of all cells is taken from the divisor. The result is at least 0 (a constant is a product,
    too), but it is not the share of the singular values of Z, nor that of the centred matrix: where the mean is large,
    the first factor is mostly spent on it.

    Raises ConfigurationError if all changes are equal.
    """
    left = squares(change)
    total = _variation(change)
    return {rank: float(1.0 - left[rank:].sum() / total) for rank in ranks}


def variance_explained(change: np.ndarray) -> dict[str, float]:
    """Return what a sum and what a product of a task's and a document's number explain of changes [M, N].

    Both are shares of the squares around the mean of all cells. `additive`: the means of rows and columns, which are
    the least squares of mu + a_i + b_j. `multiplicative`: the best u_i v_j, which is `r_squared` of rank 1.

    Raises ConfigurationError if all changes are equal.
    """
    total = _variation(change)
    mean, (height, width) = change.mean(), change.shape
    rows, columns = change.mean(1) - mean, change.mean(0) - mean
    additive = (width * np.sum(rows**2) + height * np.sum(columns**2)) / total
    return {"additive": float(additive), "multiplicative": r_squared(change, [1])[1]}


def _variation(change: np.ndarray) -> float:
    """Return the sum of the squares around the mean; raise ConfigurationError if it is 0."""
    if np.ptp(change) == 0.0:
        problem = f"all changes are {change.flat[0]:g}, so that there is nothing to explain"
        raise ConfigurationError("", problem, "measure tasks and documents that differ")
    return float(np.sum((change - change.mean()) ** 2))


def fragile(associations: Associations, count: int) -> list[MeanChange]:
    """Return the `count` documents that are forgotten most: the mean over tasks, with its standard error over tasks."""
    return _largest(associations.documents, associations.change.T, count)


def destructive(associations: Associations) -> list[MeanChange]:
    """Return the tasks, the one that makes forget most first: the mean over documents, with its standard error."""
    return _largest(associations.tasks, associations.change, len(associations.tasks))


def _largest(names: Sequence[str], values: np.ndarray, count: int) -> list[MeanChange]:
    """Return the largest means of the rows of values [names, repeats]; equal ones in the order of the rows."""
    means, repeats = values.mean(1), values.shape[1]
    errors = values.std(1, ddof=1) / np.sqrt(repeats) if repeats > 1 else None
    return [
        MeanChange(names[place], int(place), float(means[place]), None if errors is None else float(errors[place]))
        for place in np.argsort(-means, kind="stable")[:count]
    ]


def order_by_factor(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of the rows [M] and of the columns [N] of changes, those that are most forgotten first.

    They are sorted by the best u_i v_j: a task by its mean over documents u_i mean(v), a document by mean(u) v_j, so
    that no sign of u and v is to be chosen.
    """
    left, _, right = leading(change, 1)
    if not left.size:  # no change at all
        return np.arange(change.shape[0]), np.arange(change.shape[1])
    u, v = left[:, 0], right[0]
    return np.argsort(-u * v.mean(), kind="stable"), np.argsort(-v * u.mean(), kind="stable")


def similarity(
    associations: Associations, task_texts: Mapping[str, Sequence[str]], document_texts: Sequence[str]
) -> dict[str, float | None]:
    """Return how the changes correlate with the similarity of the tasks' and the upstream documents' words.

    Args:
        associations: M tasks and N documents.
        task_texts: training documents of every task.
        document_texts: the upstream documents [N].

    Returns:
        `pearson` and `spearman` over all M x N cells, of the change and the cosine between the TF-IDF vector of the
        upstream document and the mean vector of the task's documents; None where either is the same in all cells.

    Raises:
        ConfigurationError: texts are missing, or there is no word in them.
    """
    return _correlations(_cosines_of_words(associations, task_texts, document_texts), associations.change)


def similarity_of_representations(
    associations: Associations, task_vectors: Mapping[str, np.ndarray], document_vectors: np.ndarray
) -> dict[str, float | None]:
    """Return how the changes correlate with the similarity of the tasks' and the upstream documents' representations.

    Returns:
        `pearson` and `spearman` as of `similarity`, with `cosines_of_representations`.

    Raises:
        ConfigurationError: representations are missing, or are not finite.
    """
    return _correlations(cosines_of_representations(associations, task_vectors, document_vectors), associations.change)


def cosines_of_representations(
    associations: Associations, task_vectors: Mapping[str, np.ndarray], document_vectors: np.ndarray
) -> np.ndarray:
    """Return the cosines of the tasks' and the upstream documents' representations [M, N].

    That of a task is the mean of its documents', each scaled to length 1, as in Jin & Ren's code. As there, the mean of
    all representations is not taken away: it makes all cosines large, but a correlation is about their differences.

    Args:
        associations: M tasks and N documents.
        task_vectors: representations of the documents of every task [documents, H].
        document_vectors: representations of the upstream documents [N, H].

    Raises:
        ConfigurationError: representations are missing, or are not finite.
    """
    _check_complete(associations, {task: len(vectors) for task, vectors in task_vectors.items()}, len(document_vectors))
    vectors = [np.asarray(task_vectors[task], np.float64) for task in associations.tasks]
    documents = np.asarray(document_vectors, np.float64)
    if not all(np.isfinite(each).all() for each in (*vectors, documents)):
        problem = "the start model's hidden states are not finite on all texts"
        raise ConfigurationError("", problem, "use a model, or a dtype, in which they are")
    means = np.stack([_scaled(each).mean(0) for each in vectors])
    return np.asarray(_scaled(means) @ _scaled(documents).T)


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [rows, H] scaled to length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0.0)


def _correlations(near: np.ndarray, change: np.ndarray) -> dict[str, float | None]:
    """Return both correlations of all cells; None where either is the same in all."""
    from scipy.stats import pearsonr, spearmanr

    near, change = near.ravel(), change.ravel()
    if np.ptp(near) == 0.0 or np.ptp(change) == 0.0:
        return {"pearson": None, "spearman": None}
    return {"pearson": float(pearsonr(near, change)[0]), "spearman": float(spearmanr(near, change)[0])}


def _check_complete(associations: Associations, of_tasks: Mapping[str, int], documents: int) -> None:
    """Raise ConfigurationError unless every task has texts, by their numbers, and every upstream document has one."""
    for task in associations.tasks:
        if not of_tasks.get(task):
            raise ConfigurationError("", f"the task `{task}` has no text to compare", "give texts for every task")
    if documents != len(associations.documents):
        problem = f"there are {documents} texts of {len(associations.documents)} upstream documents"
        raise ConfigurationError("", problem, "give one text per document")


def _cosines_of_words(
    associations: Associations, task_texts: Mapping[str, Sequence[str]], document_texts: Sequence[str]
) -> np.ndarray:
    """Return the cosines of tasks and upstream documents [M, N]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    _check_complete(associations, {task: len(texts) for task, texts in task_texts.items()}, len(document_texts))
    # A digit or a letter alone is a word, too: there are tasks of nothing else.
    vectorizer = TfidfVectorizer(token_pattern=r"\w+")
    texts = [text for task in associations.tasks for text in task_texts[task]]
    try:
        vectorizer.fit([*document_texts, *texts])
    except ValueError as error:  # an empty vocabulary
        raise ConfigurationError("", "there is no word in any text", "give texts with words") from error
    means = np.stack([np.asarray(vectorizer.transform(task_texts[task]).mean(0))[0] for task in associations.tasks])
    return np.asarray((vectorizer.transform(document_texts) @ _scaled(means).T).T)
