"""From a stage's mitigations to its training job: prepare, streams, weights, anchors, in the order of the list."""

from pathlib import Path
from typing import Any

from continual.contract.mitigation import Anchor, Mitigation, ModelRef, Stream
from continual.errors import ConfigurationError
from continual.run.services import StageContext
from continual.store import Artefact
from continual.training.job import TASK, Component, TrainJob
from continual.training.order import StreamRows


def build_job(ctx: StageContext, folder: Path, threads: int) -> tuple[TrainJob, list[Mitigation], list[dict[str, Any]]]:
    """The stage's job, its active mitigations and their artefacts.

    Raises ConfigurationError when a stream's share gives no whole row per step.
    """
    sequence = ctx.sequence
    mitigations = [m for m in sequence.mitigations(ctx.stage) if m.active(sequence, ctx.stage)]
    artefacts = [mitigation.prepare(ctx) for mitigation in mitigations]
    weights: list[Artefact] = []
    streams: list[Stream] = []
    anchors: list[Anchor] = []
    for mitigation, made in zip(mitigations, artefacts, strict=True):
        streams += mitigation.streams(ctx, made)
        anchors += mitigation.anchors(ctx, made)
        weights += [w for w in [mitigation.weigh(ctx, made)] if w is not None]
    if anchors and sequence.train.strategy != "ddp":
        why = f"anchor `{anchors[0].name}` needs whole gradients, which `{sequence.train.strategy}` does not keep"
        raise ConfigurationError("train.strategy", why, "use `ddp`")
    task = StreamRows(TASK, ctx.task_rows, sequence.train.batch_rows, shuffle=True, row_weights=tuple(weights))
    components = [Component(task, "nll", 1.0), *(_component(ctx, stream) for stream in streams)]
    job = TrainJob(
        folder=folder,
        model=ctx.stage_start,
        tokenizer=ctx.start.path,
        components=tuple(components),
        train=sequence.train,
        steps=ctx.steps,
        seed=sequence.seed * 1000 + ctx.stage,
        evaluate_every=sequence.evaluate.every,
        anchors=tuple(anchors),
        mitigations=tuple(mitigations),
        threads=threads,
    )
    return job, mitigations, artefacts


def _component(ctx: StageContext, stream: Stream) -> Component:
    exact = stream.share * ctx.sequence.train.batch_rows
    per_step = round(exact)
    if per_step < 1 or abs(exact - per_step) > 1e-6:
        raise ConfigurationError(
            f"mitigation ({stream.name}).share",
            f"{stream.share} of {ctx.sequence.train.batch_rows} rows is {exact:g} rows per step, not a whole number",
            f"use {max(per_step, 1) / ctx.sequence.train.batch_rows:g}, or other `train.batch_tokens`",
        )
    cached = isinstance(stream.teacher, Artefact)
    rows = StreamRows(
        name=stream.name,
        artefact=stream.rows,
        per_step=per_step,
        shuffle=False,
        held_out=stream.held_out,
        row_weights=(stream.row_weights,) if stream.row_weights else (),
        columns=stream.teacher if isinstance(stream.teacher, Artefact) else None,
    )
    loss = "topk" if cached else stream.loss
    teacher = stream.teacher if isinstance(stream.teacher, ModelRef) and stream.loss == "kl" else None
    return Component(rows, loss, stream.weight, teacher)
