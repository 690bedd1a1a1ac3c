"""Build a stage's training job from its mitigations: artefacts, streams, token weights, penalties, in their order."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from continual.config.schema import Sequence
from continual.contract.mitigation import Penalty
from continual.contract.models import ModelRef
from continual.contract.stream import Stream
from continual.contract.view import StageView
from continual.errors import ConfigurationError
from continual.models import model_hash
from continual.models.files import tokenizer_files
from continual.preflight.attention import loaded_attention
from continual.preflight.stages import acting
from continual.run.candidates import candidates_of
from continual.run.services import StageContext
from continual.store import Artefact, folder_damage
from continual.training.job import TASK, TrainJob
from continual.training.losses.kinds import Nll

EXPORTS_AHEAD = 1
"""Models inside a stage that may wait for their scores beside those that are being scored, one by each process. One
keeps the processes at work; at 8B each takes 32 GB of the disk."""


def build_job(ctx: StageContext, folder: Path, threads: int) -> TrainJob:
    """Return the stage's job, with its active mitigations.

    Raises ConfigurationError if a stream's ratio gives no whole number of rows per step.
    """
    sequence = ctx.sequence
    mitigations = [mitigation for _, mitigation in acting(sequence, ctx.view.number)]
    artefacts = [mitigation.prepare(ctx) for mitigation in mitigations]
    token_weights: list[Artefact] = []
    streams: list[Stream] = []
    penalties: list[Penalty] = []
    for mitigation, made in zip(mitigations, artefacts, strict=True):
        streams += mitigation.streams(ctx, made)
        penalties += mitigation.penalties(ctx, made)
        token_weights += [w for w in [mitigation.token_weights(ctx, made)] if w is not None]
    task = Stream(TASK, ctx.task_rows, Nll(), token_weights=tuple(token_weights), shuffle=True)
    return TrainJob(
        folder=folder,
        model=ctx.stage_start,
        tokenizer=ctx.start.path,
        streams=tuple(_with_rows(stream, sequence.train.batch_rows) for stream in [task, *streams]),
        train=sequence.train,
        steps=ctx.view.steps or 0,
        seed=sequence.seed * 1000 + ctx.view.number,
        evaluate_every=sequence.evaluate.every,
        most_exports=sequence.evaluate.replicas + EXPORTS_AHEAD,
        penalties=tuple(penalties),
        mitigations=tuple(mitigations),
        threads=threads,
        ends=_ends(ctx),
        attention=loaded_attention(sequence, ctx.stage_start.path),
    )


def part_steps(sequence: Sequence, view: StageView) -> list[int]:
    """Return the steps after which a stage pauses for its mitigations, rising; none: it is trained in one go.

    Raises ConfigurationError for a step that is not within the stage, whose steps are known.
    """
    found = {(step, key) for key, m in acting(sequence, view.number) for step in m.parts(view)}
    for step, key in found:
        if not 0 < step < (view.steps or 0):
            problem = f"it pauses after step {step} of a stage of {view.steps} steps"
            raise ConfigurationError(key, problem, f"choose a step from 1 to {(view.steps or 0) - 1}, or more steps")
    return sorted({step for step, _ in found})


def next_part(ctx: StageContext, job: TrainJob, step: int, trained: ModelRef) -> TrainJob:
    """Return the job of the stage after `step` steps, at which the model is `trained`: with the streams of the part.

    A stream takes the place of the one of its name, or comes behind all others.
    """
    streams = {stream.name: stream for stream in job.streams}
    for mitigation in job.mitigations:
        if step in mitigation.parts(ctx.view):
            for stream in mitigation.part(ctx, step, trained):
                streams[stream.name] = _with_rows(replace(stream, since=step), job.train.batch_rows)
    return replace(job, streams=tuple(streams.values()))


def made_again(ctx: StageContext, trained: Path, lost: ModelRef) -> bool:
    """Let the stage's mitigations make its model again, from what training left in the folder `trained`.

    Return whether they have made it as it was: not without whole trained weights, nor where no mitigation makes models.
    """
    if not Path(lost.path).is_relative_to(ctx.store.root) or folder_damage(trained) is not None:
        return False
    after = ModelRef(str(trained), model_hash(trained))
    makers = [m for _, m in acting(ctx.sequence, ctx.view.number) if m.overrides("after_training")]
    candidates = candidates_of(ctx, makers, after)
    return bool(candidates) and candidates[0].model == lost


def passes(job: TrainJob) -> dict[str, dict[str, float]]:
    """Return for each complete stream the rows that the stage reads, those that there are beside the rows held out, and
    the quotient: more than one pass repeats rows.
    """
    found = {}
    for stream in job.streams:
        if not stream.rows.complete:
            continue
        total = int(stream.rows.manifest()["counts"]["rows"])
        there, read = total - min(stream.held_out, total), stream.rows_per_step * (job.steps - stream.since)
        found[stream.name] = {
            "rows_read": read, "rows": there, "held_out": total - there, "passes": read / max(1, there),
        }  # fmt: skip
    return found


def passes_in_words(name: str, of: dict[str, float]) -> str:
    """Return what the terminal says of a stream's passes."""
    held_out = f", {of['held_out']} more held out" if of["held_out"] else ""
    repeated = "; rows are repeated" if of["passes"] > 1 and name != TASK else ""
    return f"{name}: reads {of['rows_read']} rows of {of['rows']}{held_out}: {of['passes']:.2f} passes{repeated}"


def _ends(ctx: StageContext) -> Literal["", "text", "chat"]:
    """Return what ends an answer in the stage's data."""
    chat = bool(ctx.task_rows.manifest().get("conversations"))
    source = ctx.sequence.stages[ctx.view.number - 1].data
    if not (chat or source.end_token) or not tokenizer_files(ctx.start.path):  # rows of ids need no tokenizer
        return ""
    return "chat" if chat else "text"


def _with_rows(stream: Stream, batch_rows: int) -> Stream:
    """Return the stream with its rows per step, for `batch_rows` rows of the task."""
    exact = stream.ratio * batch_rows
    rows = round(exact)
    if rows < 1 or abs(exact - rows) > 1e-6:
        raise ConfigurationError(
            f"mitigation ({stream.name}).ratio",
            f"{stream.ratio} of {batch_rows} rows is {exact:g} rows per step, not a whole number",
            f"use {max(rows, 1) / batch_rows:g}, or other `train.batch_tokens`",
        )
    return replace(stream, rows_per_step=rows)
