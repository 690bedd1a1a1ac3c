"""Drift against loss: how far a stage has moved the model, and what of the old scores that cost; a point per stage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.config.measured import Measured
from continual.contract.mitigation import label_of
from continual.forgetting import Score
from continual.show.report.correlation import Correlation, correlation
from continual.show.report.gather import RunData, StageLog
from continual.show.report.trade_off import EARLIER, OLD, mean_score

SINCE = {"stage_start": "the stage's start", "start": "the start model"}
"""The models from which drift is measured, by the option `model` of the methods that name one."""
ON_TEXTS = {"start": "drift", "stage_start": "drift_stage"}
"""What summary.json calls the drift on texts from each of them."""


@dataclass(frozen=True)
class DriftPoint:
    """A stage of run number `run`: `drift` at its end in nats per token, and the mean old score that is `lost` since.

    `stderr` of the loss takes its two scores for independent; None where an error is unknown.
    """

    run: int
    stage: int
    name: str
    drift: float
    lost: float
    stderr: float | None


@dataclass(frozen=True)
class Watched:
    """Points that can be compared: drift from one kind of model, and one kind of old score in one unit.

    `stream`: what the drift is measured on, a stream's held-out rows or a text; `since`: a key of SINCE; `kind`:
    EARLIER or OLD.
    """

    stream: str
    since: str
    kind: str
    unit: str
    points: list[DriftPoint]
    found: Correlation


def watched(runs: Sequence[RunData]) -> list[Watched]:
    """Return the points of all stages by what can be compared; groups with too few points (`LEAST`) are left out.

    On a text, the drift is that of the model that was scored. On held-out rows it is that of the model after the
    stage's last step: a stage whose model a mitigation then replaced has no point there.

    From the stage's start, the loss is the mean score before the stage minus that after it, of all that earlier stages
    learned or of the old abilities. From the start model, it is the loss of the old abilities since before the first
    stage, because what stages learn was not known then.
    """
    groups: dict[tuple[str, str, str, str], list[DriftPoint]] = {}
    for number, run in enumerate(runs):
        for stage in run.stages:
            for stream, since, drift in _drifts(run, stage):
                for kind, (before, after) in _scores(run, stage.number, since).items():
                    errors = before.stderr, after.stderr
                    stderr = None if None in errors else sum(e**2 for e in errors if e is not None) ** 0.5
                    point = DriftPoint(number, stage.number, stage.name, drift, before.score - after.score, stderr)
                    groups.setdefault((stream, since, kind, after.unit), []).append(point)
    found = [(key, points, _correlated(points)) for key, points in groups.items()]
    return [Watched(*key, points, of) for key, points, of in found if of is not None]


def watched_as_json(groups: Sequence[Watched], runs: Sequence[RunData], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the groups as JSON values: their points with run and stage, and the correlation with its interval."""
    return [
        {
            "stream": group.stream,
            "drift_since": group.since,
            "old": group.kind,
            "unit": group.unit,
            "spearman": group.found.spearman,
            "interval": group.found.interval and list(group.found.interval),
            "runs": group.found.runs,
            "points": [
                {
                    "run": runs[point.run].folder.name, "label": labels[point.run], "stage": point.stage,
                    "name": point.name, "drift": point.drift, "lost": point.lost, "stderr": point.stderr,
                }
                for point in group.points
            ],
        }
        for group in groups
    ]  # fmt: skip


def _correlated(points: Sequence[DriftPoint]) -> Correlation | None:
    return correlation([p.drift for p in points], [p.lost for p in points], [p.run for p in points])


def _drifts(run: RunData, stage: StageLog) -> Iterator[tuple[str, str, float]]:
    """Yield what drift was measured on at the end of a stage, from which model (a key of SINCE), and the drift."""
    for stream, drift in _at_end(stage).items():
        if (since := _since(run, stage.number, stream)) is not None:
            yield stream, since, drift
    for since, key in ON_TEXTS.items():
        for text, stages in (run.summary.get(key) or {}).items():
            yield from ((text, since, of["drift"]) for of in stages if of["stage"] == stage.number)


def _at_end(stage: StageLog) -> Mapping[str, float]:
    """Return the drift by stream after the last step of a stage, {} if its model is not the one that was scored."""
    last = stage.records[-1] if stage.records else {}
    drift: Mapping[str, float] = last.get("drift", {})
    return drift if stage.trained_is_scored and last["step"] == stage.steps else {}


def _since(run: RunData, stage: int, stream: str) -> str | None:
    """Return from which model the drift of a stream is measured in a stage, a key of SINCE; None if that is unknown."""
    own = run.config["stages"][stage - 1].get("mitigation")
    listed = own if own is not None else run.config.get("mitigation") or []
    named = {label_of(entry["type"], entry.get("name")): entry.get("model") for entry in listed}.get(stream)
    return named if named in SINCE else None


def _scores(run: RunData, stage: int, since: str) -> dict[str, tuple[Score, Score]]:
    """Return the mean old score before and after a stage, by kind, where both are known in one unit."""
    measured, rows = Measured.of_config(run.config), {row.stage: row.scores for row in run.matrix}
    earlier = list(dict.fromkeys(task for tasks in measured.stage_tasks[: stage - 1] for task in tasks))
    kinds = {EARLIER: [task for task in earlier if task not in measured.stage_tasks[stage - 1]], OLD: measured.old}
    if since == "start":
        del kinds[EARLIER]
    first = 0 if since == "start" else stage - 1
    found = {}
    for kind, tasks in kinds.items():
        both = [mean_score(run, {task: rows.get(row, {}).get(task) for task in tasks}) for row in (first, stage)]
        if both[0] and both[1]:
            found[kind] = both[0], both[1]
    return found
