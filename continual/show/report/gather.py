"""The content of a run folder as one value: summary, steps, scores inside the stages, samples, configuration."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from continual.config.measured import figure_units, gain_of
from continual.config.yaml_text import read_yaml
from continual.errors import ConfigurationError, ContinualError
from continual.evaluation.service import read_scores
from continual.forgetting import Scores, StageScores, matrix_as_json, read_matrix, tasks_of, units_of
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Events, read_ledger
from continual.ledger.places import placed, placed_model
from continual.ledger.progress import is_summary
from continual.ledger.records import read_records
from continual.ledger.walks import walks_of
from continual.show.report.answers import Answers, Evaluations, gather_answers
from continual.show.report.found import Completion, gather_completions, gather_forecast
from continual.store import Artefact
from continual.store.json_files import has, known_json, read_json
from continual.store.notices import say
from continual.store.places import is_name, is_path


@dataclass(frozen=True)
class StageLog:
    """A stage's optimizer steps and what was scored between them.

    `first` is the number of steps of all stages before it, so that step s of the stage is step first + s of the run.
    `records` are the lines of metrics.jsonl; `inside` has the scores by step of the stage. `trained_is_scored`: the
    model that the scores after the stage are of is the trained one, no average or repaired one made of it.
    """

    number: int
    name: str
    first: int
    steps: int
    records: list[dict[str, Any]]
    inside: dict[int, Scores]
    trained_is_scored: bool


@dataclass(frozen=True)
class SampleSet:
    """Samples that a stage rehearsed: their artefact, and the folder of the model that made them."""

    stage: int
    stage_name: str
    samples: Artefact
    model: str | None


@dataclass(frozen=True)
class RunData:
    """A run, read from its folder.

    `summary` is summary.json; of an unfinished run, what is known so far. `facts` is versions.json, {} without it.
    `forecast` is forecast.json, if `continual.forecast` has made one.
    """

    folder: Path
    config: dict[str, Any]
    config_text: str
    summary: dict[str, Any]
    finished: bool
    stages: list[StageLog]
    sample_sets: list[SampleSet]
    facts: dict[str, Any]
    answers: list[Answers] = field(default_factory=list)
    forecast: dict[str, Any] | None = None
    completions: list[Completion] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @cached_property
    def matrix(self) -> list[StageScores]:
        """The scores after every stage so far."""
        return read_matrix(self.summary["matrix"])

    @cached_property
    def figure_units(self) -> dict[str, str]:
        """The units of the figures that have one."""
        return figure_units(self.config, self.summary.get("unit", {}))

    @cached_property
    def gain(self) -> float | None:
        """What the stages' tasks gained, each in its stage; None if that is unknown."""
        return gain_of(self.config, self.matrix) if self.finished else None

    def unit(self, task: str) -> str:
        """Return the unit of a task's score; `score` if it is unknown."""
        return str(self.summary.get("unit", {}).get(task, "score"))

    def waited(self, stages: list[StageLog] | None = None) -> float | None:
        """Return the share of the training time in which workers waited for data; None before the first step."""
        records = [record for stage in stages or self.stages for record in stage.records]
        seconds = sum(record.get("seconds", 0.0) for record in records)
        return sum(record.get("data_wait", 0.0) for record in records) / seconds if seconds else None


def gather(folder: Path, known: Evaluations | None = None) -> RunData:
    """Read a run folder; `known` are the evaluations of its storage, which several runs share.

    Raises ConfigurationError if it is not a run's folder, and ContinualError if a file of it is damaged.
    """
    files = RunFolder(folder)
    if not (files.config.is_file() and files.ledger.is_file()):
        raise ConfigurationError(
            "",
            "this is not a run's folder: it has no config.yaml or no ledger.jsonl",
            "name a run's folder, <storage>/<name>, or that of associations that are measured",
            str(folder),
        )
    ledger, config = read_ledger(folder), read_yaml(files.config, str(files.config))
    again = "give the command of the run again, which writes it anew"
    if not _is_config(config):
        raise ContinualError(f"{files.config}: the stored file is damaged; {again}")
    for loss in ledger.loss:
        say(f"note: {loss}")
    summary = read_json(files.summary, again, _is_whole) if files.summary.is_file() else _so_far(ledger, config)
    return RunData(
        folder=folder,
        config=config,
        config_text=files.config.read_text(encoding="utf-8", errors="replace"),
        summary=summary,
        finished=summary["status"] == "done",
        stages=_stages(files, ledger, config),
        sample_sets=_sample_sets(folder, ledger, config),
        facts=known_json(files.versions),
        answers=gather_answers(ledger, _store(folder, config), known),
        forecast=gather_forecast(files),
        completions=gather_completions(ledger, [stage["name"] for stage in config["stages"]], _store(folder, config)),
    )


def _is_config(config: dict[str, Any]) -> bool:
    """Return whether a run's copy of its configuration has what a report needs of it."""
    named = has(name=str)
    if not has(name=str, storage=str, stages=list)(config) or not all(map(named, config["stages"])):
        return False
    return all(is_name(stage["name"]) for stage in config["stages"]) and is_path(config["storage"])


def _is_whole(summary: Any) -> bool:
    return is_summary(summary) and has(name=str, tasks=list, seconds=dict)(summary)


def _so_far(ledger: Events, config: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of an unfinished run; its figures come with its end."""
    matrix = read_matrix(ledger.all("scored"))
    return {
        "name": config["name"],
        "status": "running",
        "tasks": tasks_of(matrix),
        "matrix": matrix_as_json(matrix),
        "seconds": ledger.seconds(),
        "unit": units_of(matrix),
        "walks": walks_of(ledger),
    }


def _stages(files: RunFolder, ledger: Events, config: dict[str, Any]) -> list[StageLog]:
    """Return the stages that were begun, in order."""
    planned = {event["stage"]: event["steps"] for event in _prepared(ledger, config)}
    done = {event["stage"]: placed_model(event["model"], files.path.resolve()) for event in ledger.all("stage_done")}
    stages: list[StageLog] = []
    for number, steps in planned.items():
        name = config["stages"][number - 1]["name"]
        folder = files.stage(number, name)
        inside = {step: read_scores(path) for step, path in folder.score_files().items()}
        first = sum(stage.steps for stage in stages)
        own = done.get(number) == str(folder.model.resolve())
        stages.append(StageLog(number, name, first, steps, read_records(folder.metrics), inside, own))
    return stages


def _prepared(ledger: Events, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was prepared for the stages that the configuration has."""
    return [event for event in ledger.all("prepared") if 1 <= event["stage"] <= len(config["stages"])]


def _store(folder: Path, config: dict[str, Any]) -> Path:
    """Return the store of a run's storage, which may have been moved."""
    nearby = folder.resolve().parent / "store"
    return nearby if nearby.is_dir() else Path(config["storage"]) / "store"


def _sample_sets(folder: Path, ledger: Events, config: dict[str, Any]) -> list[SampleSet]:
    """Return the complete sample sets of the stages, each once per stage."""
    root = str(_store(folder, config))
    models = {event["hash"]: placed(event["path"], folder.resolve().parent) for event in ledger.all("start_model")}
    models |= {event["hash"]: placed_model(event["model"], folder.resolve()) for event in ledger.all("stage_done")}
    used = dict.fromkeys((event["stage"], name) for event in _prepared(ledger, config) for name in event["samples"])
    return [
        SampleSet(stage, config["stages"][stage - 1]["name"], samples, models.get(samples.manifest().get("model", "")))
        for stage, samples in ((stage, Artefact("samples", name, root)) for stage, name in used)
        if samples.complete
    ]


def by_stream(run: RunData, group: str) -> dict[str, list[tuple[list[int], list[float], list[float] | None]]]:
    """Return the numbers of `group` (loss, weight, drift) by stream: steps of the run and values per stage.

    With them come standard errors, None where not all are known.
    """
    lines: dict[str, list[tuple[list[int], list[float], list[float] | None]]] = {}
    for stage in run.stages:
        names = dict.fromkeys(name for record in stage.records for name in record.get(group, {}))
        for name in names:
            records = [record for record in stage.records if name in record.get(group, {})]
            steps = [stage.first + record["step"] for record in records]
            found = [error for record in records if (error := record.get(f"{group}_stderr", {}).get(name)) is not None]
            errors = found if len(found) == len(records) else None
            lines.setdefault(name, []).append((steps, [record[group][name] for record in records], errors))
    return lines


def over_steps(run: RunData, task: str) -> tuple[list[int], list[float]]:
    """Return the scores of a task at steps of the run: before the first, inside the stages, and after each stage."""
    after = {0: 0} | {stage.number: stage.first + stage.steps for stage in run.stages}
    measured = [(stage.first + step, scores) for stage in run.stages for step, scores in stage.inside.items()]
    measured += [(after[row.stage], row.scores) for row in run.matrix if row.stage in after]
    points = {step: scores[task].score for step, scores in measured if task in scores}
    return sorted(points), [points[step] for step in sorted(points)]
