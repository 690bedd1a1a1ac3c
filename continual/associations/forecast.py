"""What an unseen task would make forget, and how far such forecasts are off for tasks that are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from continual.associations.matrix import Associations, Kind
from continual.errors import ConfigurationError, nearest
from continual.forgetting.completion import complete
from continual.forgetting.completion.complete import MODELS, Model

FEWEST = 3
"""Tasks: one is unseen, and of two others one sets the threshold for forecasts from the other."""
MOST_HELD = 10
"""Most known tasks that set a threshold."""
LEVEL = 0.95
"""Probability of the interval."""
SCORES: dict[Kind, tuple[str, ...]] = {"nats": ("rmse",), "lost": ("f1", "auc")}


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks, with its standard error, None of a single task. `tasks`: how many have a value."""

    mean: float
    stderr: float | None
    tasks: int


@dataclass(frozen=True)
class ForecastError:
    """How far a model's forecasts of unseen tasks are off.

    `scores`: of the unseen documents, `rmse` in nats per token, or `f1` and `auc` of what is lost; None where no task
    has a value. `bias`: the forecast mean over all documents minus the true one, on average; `spread`: its
    standard deviation over tasks, where each task has its own probes. `tasks`, `probes`: how many there are.
    """

    model: str
    scores: dict[str, Estimate | None]
    bias: float
    spread: float
    tasks: int
    probes: int


@dataclass(frozen=True)
class AtRisk:
    """An upstream document with its change, `measured` or forecast; `index`: its place in the associations."""

    document: str
    index: int
    change: float
    measured: bool


@dataclass(frozen=True)
class Forecast:
    """What an unseen task would change, in the unit of the associations.

    `row` [N]: the changes, measured where documents were. `mean`: their mean. `interval`: ends of the 95 % interval of
    the true mean. `at_risk`: the documents that are forgotten most, the worst first.
    """

    model: str
    row: np.ndarray
    mean: float
    interval: tuple[float, float]
    at_risk: list[AtRisk]


def evaluate(
    associations: Associations, probes: int = 30, draws: int = 10, seed: int = 0, models: Sequence[str] | None = None
) -> list[ForecastError]:
    """Return how far each model is off: every task in turn is unseen, and the others are known.

    Args:
        associations: M tasks and N documents.
        probes: documents whose changes by the unseen task are known.
        draws: sets of probes of every task; all models have the same ones.
        seed: decides the sets.
        models: names in `MODELS`; None for all that suit the kind of the associations.

    Returns:
        One `ForecastError` per model. Its scores are means over tasks of the means over draws: the root mean square
        error over the documents that are no probes, or the F1 and the area under the ROC curve of what is lost of them.
        F1's threshold is the best one for some of the known tasks, forecast from the others: the unseen task has no
        part in it. Draws in which nothing or everything is lost have neither.

    Raises:
        ConfigurationError: fewer than FEWEST tasks, no document beside the probes, or a model that does not suit.
    """
    height, width = associations.change.shape
    if height < FEWEST:
        problem = f"there are {height} tasks, and a forecast is tested on each with the others known"
        raise ConfigurationError("", problem, f"collect at least {FEWEST}")
    if not 1 <= probes < width:
        problem = f"{probes} of {width} documents leave nothing to measure, or nothing to forecast"
        raise ConfigurationError("probes", problem, f"give 1 to {width - 1}")
    if draws < 1:
        raise ConfigurationError("draws", f"{draws} sets of probes are none", "give at least 1")
    names = _names(associations.kind, models)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for task, truth in enumerate(associations.change):
        known = np.delete(associations.change, task, axis=0)
        sets = [complete.probes(probes, width, (seed, task, draw)) for draw in range(draws)]
        for name in names:
            found[name].append(_measured(MODELS[name], known, truth, sets, associations.kind))
    return [_summary(name, np.stack(values), SCORES[associations.kind], probes) for name, values in found.items()]


def _names(kind: Kind, models: Sequence[str] | None) -> list[str]:
    """Return the names of the models, by default all that suit; raise ConfigurationError if one does not."""
    suited = [name for name, model in MODELS.items() if kind == "lost" or not model.probability]
    for name in models or ():
        if name not in suited:
            problem = (
                f"`{name}` is for associations of kind `lost`" if name in MODELS else f"there is no model `{name}`"
            )
            hint = nearest(name, suited)
            fix = f"did you mean `{hint}`?" if hint else f"choose from {', '.join(suited)}"
            raise ConfigurationError("models", problem, fix)
    return suited if models is None else list(dict.fromkeys(models))


def _measured(model: Model, known: np.ndarray, truth: np.ndarray, sets: list[np.ndarray], kind: Kind) -> np.ndarray:
    """Return the SCORES of the kind and the error of the mean, for each set of probes [draws, scores + 1]."""
    completion = model.fit(known)
    threshold = _threshold(model, known) if kind == "lost" else None
    results = []
    for columns in sets:
        row = completion(columns, truth[columns])
        unseen = np.ones(len(row), dtype=bool)
        unseen[columns] = False
        if threshold is None:
            scores = [float(np.sqrt(np.mean((row[unseen] - truth[unseen]) ** 2)))]
        else:
            scores = _found(truth[unseen], row[unseen], threshold(columns))
        results.append([*scores, float(np.sum((row - truth)[unseen])) / len(row)])
    return np.array(results)


def _found(lost: np.ndarray, forecast: np.ndarray, threshold: float) -> list[float]:
    """Return F1 and the area under the ROC curve; NaN where nothing or everything is lost."""
    from sklearn.metrics import f1_score, roc_auc_score

    if np.ptp(lost) == 0.0:
        return [np.nan, np.nan]
    return [f1_score(lost, forecast >= threshold, zero_division=0.0), roc_auc_score(lost, forecast)]


def _threshold(model: Model, known: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return what gives, for the places of probes, the threshold from which on a document counts as lost.

    A third of the known rows, at most MOST_HELD, are completed from the others; the threshold has the best F1 of them.
    """
    from sklearn.metrics import precision_recall_curve

    held = np.unique(np.linspace(0, len(known) - 1, min(MOST_HELD, max(1, len(known) // 3))).astype(int))
    rows, completion = known[held], model.fit(np.delete(known, held, axis=0))

    def best(columns: np.ndarray) -> float:
        others = np.delete(np.arange(known.shape[1]), columns)
        lost = rows[:, others].ravel()
        if not lost.any():
            return np.inf
        forecasts = np.concatenate([completion(columns, row[columns])[others] for row in rows])
        precision, recall, thresholds = precision_recall_curve(lost, forecasts)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return float(thresholds[np.argmax(f1[:-1])])

    return best


def _summary(model: str, values: np.ndarray, names: tuple[str, ...], probes: int) -> ForecastError:
    """Return the errors of a model from its results [tasks, draws, scores + 1]."""
    scores = {name: _estimate(values[:, :, place]) for place, name in enumerate(names)}
    shifts = values[:, :, -1]
    # A forecast has one set of probes: the mean over the draws has less spread. Those of one draw share none.
    spread = float(np.sqrt(np.mean(np.var(shifts, axis=0, ddof=1))))
    return ForecastError(model, scores, float(shifts.mean()), spread, len(values), probes)


def _estimate(values: np.ndarray) -> Estimate | None:
    """Return the mean over tasks of their means over draws [tasks, draws], without those that are NaN."""
    by_task = [float(np.mean(row[~np.isnan(row)])) for row in values if not np.isnan(row).all()]
    if not by_task:
        return None
    stderr = float(np.std(by_task, ddof=1)) / float(np.sqrt(len(by_task))) if len(by_task) > 1 else None
    return Estimate(float(np.mean(by_task)), stderr, len(by_task))


def forecast(
    associations: Associations, columns: np.ndarray, values: np.ndarray, error: ForecastError, count: int = 20
) -> Forecast:
    """Forecast the changes by an unseen task from those of K documents.

    The interval holds the true mean as often as it says if the task is like the known ones. With the bias and the
    spread s of the model's errors on M known tasks it is

        mean - bias +- t s sqrt(1 + 1 / M),  t the quantile of Student's distribution with M - 1 degrees of freedom

    Args:
        associations: M tasks and N documents.
        columns: the places of the documents that were measured, int [K], each once.
        values: their changes [K].
        error: the error of the model to use, with K probes; see `evaluate`.
        count: how many documents are named as at risk.

    Raises:
        ConfigurationError: there are more or fewer documents than in the test of the model, or not such as these.
    """
    from scipy.special import stdtrit

    _check(associations, columns, values, error)
    row = MODELS[error.model](associations.change, columns, values)
    row[columns] = values
    center = float(row.mean()) - error.bias
    half = float(stdtrit(error.tasks - 1, (1 + LEVEL) / 2)) * error.spread * float(np.sqrt(1 + 1 / error.tasks))
    # Of a share there is no less than none, and no more than all.
    ends = (0.0, 1.0) if associations.kind == "lost" else (-np.inf, np.inf)
    mean, low, high = (float(np.clip(value, *ends)) for value in (row.mean(), center - half, center + half))
    measured = set(columns.tolist())
    at_risk = [
        AtRisk(associations.documents[place], int(place), float(row[place]), int(place) in measured)
        for place in np.argsort(-row, kind="stable")[:count]
    ]
    return Forecast(error.model, row, mean, (low, high), at_risk)


def _check(associations: Associations, columns: np.ndarray, values: np.ndarray, error: ForecastError) -> None:
    """Raise ConfigurationError if measured documents cannot be used."""
    count = len(associations.documents)
    if len(columns) != error.probes or len(values) != error.probes:
        problem = (
            f"{len(columns)} documents with {len(values)} changes are measured, and {error.probes} were in the test"
        )
        raise ConfigurationError("probes", problem, "test and forecast with equally many")
    if len(np.unique(columns)) < len(columns) or columns.min() < 0 or columns.max() >= count:
        problem = f"the measured documents are not different ones of the {count}"
        raise ConfigurationError("probes", problem, "measure documents of the associations, each once")
    if not np.isfinite(values).all() or (associations.kind == "lost" and not np.isin(values, (0.0, 1.0)).all()):
        wanted = "0 or 1" if associations.kind == "lost" else "finite numbers"
        raise ConfigurationError("probes", f"the measured changes are not all {wanted}", "measure them again")
