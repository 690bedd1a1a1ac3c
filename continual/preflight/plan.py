"""A plan: what would run, what it would cost, and what exists already."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.config.load import Loaded
from continual.config.measured import Measured
from continual.config.schema import Evaluate, Sequence
from continual.errors import ConfigurationError, ContinualError
from continual.errors.budget import ALL, limited
from continual.ledger.changes import refuse_changes
from continual.ledger.folder import RunFolder, default_tracking_uri, steps_in
from continual.ledger.progress import Progress, counted, read_progress
from continual.preflight.attention import attention_in_words
from continual.preflight.check_memory import gib, largest, needed_memory
from continual.preflight.delivery import chosen_delivery, scores_beside, training_cpus
from continual.preflight.estimate import epoch_steps, estimated_rows, stored_rows
from continual.preflight.model_facts import read_model
from continual.preflight.passes import replay_passes
from continual.preflight.placement import placed
from continual.preflight.resources import Machine, detect_machine, local_cpus, while_training
from continual.preflight.stages import acting, entries, stage_view, uses_sampling
from continual.preflight.tokenizer_facts import TokenizerFacts, read_tokenizer
from continual.preflight.training_time import TrainingTime, training_time
from continual.sampling.sets import covers, tokens_by_maker
from continual.store import Artefact
from continual.store.lock import owner_of
from continual.training.resources import worker_cpus

LITTLE = 1 << 30
"""Bytes of a worker on CPUs that a plan need not speak of."""


@dataclass(frozen=True)
class StagePlan:
    """One stage. Numbers are None where they are not known yet; those named in `estimated` are estimates.

    `train_tokens` are the task's, `replay_tokens` those of the other streams, `sample_tokens` those sampled for it
    (about the most, if not yet made). `passes`: rows read per row there by stream, at least. `state`: `done`, `step N`
    (of a checkpoint), `begun` or "" (nothing of it is there). `step_seconds` are those of an optimizer step, `hours`
    those of all of them.
    """

    number: int
    name: str
    rows: int | None
    steps: int | None
    train_tokens: int | None
    replay_tokens: int | None
    sample_tokens: int | None
    mitigations: list[str]
    state: str
    estimated: list[str] = field(default_factory=list)
    passes: dict[str, float] = field(default_factory=dict)
    step_seconds: float | None = None
    hours: float | None = None


@dataclass(frozen=True)
class Plan:
    """A whole run; JSON-able with `dataclasses.asdict`.

    `status`: `new`, `begun`, `changed` (begun, and the run would be refused), `running` (by `driver`) or `done`.
    `facts` says in words what the run uses, under a title each.
    """

    name: str
    file: str
    status: str
    facts: dict[str, str]
    stages: list[StagePlan]
    warnings: list[str]
    driver: str = ""
    batch_rows: int = 1


@limited(ALL)
def make_plan(loaded: Loaded, held: bool = False) -> Plan:
    """Return the plan of a sequence that has passed `continual.preflight.check.check`; write and start nothing.

    `held`: this process is the driver of the run, whose lock it holds.
    """
    sequence, folder = loaded.sequence, loaded.run_folder
    progress = read_progress(folder)
    tokenizer = read_tokenizer(sequence.model, read_model(sequence.model)[0].folder)
    warnings: list[str] = []
    numbers = range(1, len(sequence.stages) + 1)
    time = training_time(sequence, folder)
    stages = [_stage(loaded, number, progress, tokenizer, warnings, time) for number in numbers]
    driver = "" if held else owner_of(RunFolder(folder).lock) or ""
    status = "done" if progress.finished else "begun" if progress.begun else "new"
    status = "running" if driver else "changed" if _is_changed(loaded) else status
    return Plan(
        sequence.name,
        loaded.file,
        status,
        _facts(sequence, folder, time),
        stages,
        warnings,
        driver,
        sequence.train.batch_rows,
    )


def _is_changed(loaded: Loaded) -> bool:
    try:
        refuse_changes(loaded.run_folder, loaded)
    except ContinualError:
        return True
    return False


def _facts(sequence: Sequence, folder: Path, time: TrainingTime) -> dict[str, str]:
    machine = detect_machine()
    sequence, chosen = placed(sequence, machine.cpus, machine.gpus)
    model, train, evaluate, track = sequence.model, sequence.train, sequence.evaluate, sequence.track
    evaluators = evaluators_in_words(evaluate, chosen)
    rows = f"{train.batch_rows} rows of {train.row_tokens} tokens per step"
    every = f" and every {evaluate.every} steps" if evaluate.every else ""
    here = f"the Ray cluster at {machine.address}, whose resources are checked when the run connects"
    if machine.cpus is not None:
        gpus = "unknown GPUs" if machine.gpus is None else f"{machine.gpus:g} GPUs"
        here = f"{machine.cpus:g} CPUs, {gpus}"
    uri = track.uri or default_tracking_uri(Path(sequence.storage))
    return {
        "model": f"{model.source if model.type == 'pretrained' else model.build}, {model.dtype}",
        "training": f"{_workers(sequence, machine.cpus, machine.gpus)}; {rows}",
        **attention_in_words(sequence),
        **_memory(sequence),
        "time": time.words,
        "sampling": _engines(sequence, machine),
        "evaluation": f"{', '.join(Measured.of(sequence).names) or 'nothing'}; at the start, after every stage{every}"
        f"{_overlap(sequence, machine)}{'; ' if evaluators else ''}{evaluators}",
        "machine": here,
        "run": str(folder),
        "store": f"{Path(sequence.storage) / 'store'} (shared by all runs of this storage)",
        "tracking": uri if track.enabled else "off",
    }


def _stage(
    loaded: Loaded, number: int, progress: Progress, tokenizer: TokenizerFacts | None, warnings: list[str],
    time: TrainingTime,
) -> StagePlan:  # fmt: skip
    sequence, declared = loaded.sequence, loaded.sequence.stages[number - 1]
    store = Path(sequence.storage) / "store"
    estimated = []
    done = progress.done.get(number)
    rows = counted(store, "rows", [done["rows"]], "rows") if done and "rows" in done else None
    if rows is None:
        rows = stored_rows(store, declared.data, sequence.train.row_tokens)
    if rows is None:
        try:
            rows, warning = estimated_rows(declared.data, tokenizer, sequence.train.row_tokens)
        except ConfigurationError as error:
            raise error.within(f"stages.{number - 1}.data").in_file(loaded.file) from error
        estimated.append("rows")
        if warning:
            warnings.append(f"stages.{number - 1}.data: {warning}")
    steps = declared.steps
    if steps is None and rows:
        steps = epoch_steps(declared.epochs or 1.0, rows, sequence.train.batch_rows)
        estimated += ["steps", "train_tokens", "replay_tokens", "sample_tokens"] if "rows" in estimated else []
    if rows == 0:
        warnings.append(f"stages.{number - 1}.data: no sampled document fits a row; raise `train.row_tokens`")
    active = acting(sequence, number)
    ratio = sum(mitigation.replay_ratio() for _, mitigation in active)
    tokens = steps * sequence.train.batch_tokens if steps else None
    prepared, view = progress.prepared.get(number, {}), stage_view(sequence, number, steps)
    sampled = _sampled(store, prepared)
    if sampled is None:
        sampled = sum(mitigation.sampled_tokens(view) for _, mitigation in active) if steps or not active else None
    elif "sample_tokens" in estimated:
        estimated.remove("sample_tokens")
    listed = entries(sequence, number)
    labels = [m.label if (key, m) in active else f"({m.label})" for key, m in listed]
    replayed = None if tokens is None else round(tokens * ratio)
    state = _state(number, declared.name, loaded.run_folder, progress)
    passes = replay_passes(active, view, prepared, store, tokenizer, warnings) if steps else {}
    took = time.steps.get(number)
    return StagePlan(
        number, declared.name, rows, steps, tokens, replayed, sampled, labels, state, estimated, passes,
        took, took * steps / 3600 if took and steps else None,
    )  # fmt: skip


def _sampled(store: Path, prepared: dict[str, Any]) -> int | None:
    """Return the sampled tokens that a prepared stage uses, None if it is not prepared or their set is gone."""
    if not prepared.get("samples"):
        return None
    if not (used := prepared.get("sampled")):
        return counted(store, "samples", prepared["samples"], "tokens")
    sets = {Artefact("samples", name, str(store)): count for name, count in used.items()}
    if not all(covers(samples, count) for samples, count in sets.items()):
        return None
    return sum(sum(tokens_by_maker(samples, count).values()) for samples, count in sets.items())


def _state(number: int, name: str, run_folder: Path, progress: Progress) -> str:
    if number in progress.done:
        return "done"
    step = max(steps_in(RunFolder(run_folder).stage(number, name).checkpoints), default=0)
    return f"step {step}" if step else "begun" if number in progress.prepared else ""


def _workers(sequence: Sequence, cpus: float | None, gpus: float | None) -> str:
    train = sequence.train
    cpus_here = local_cpus() if cpus is None else cpus
    delivery = chosen_delivery(sequence, cpus, gpus).delivery
    share = worker_cpus(train, training_cpus(sequence, delivery, cpus_here))
    each = "a share of the CPUs" if cpus is None and not train.cpus_per_worker else f"{share:g} CPU"
    gpu = f" and {train.gpus_per_worker:g} GPU" if train.gpus_per_worker else ""
    strategy = f"deepspeed ZeRO-{train.zero_stage}" if train.strategy == "deepspeed" else train.strategy
    return f"{strategy}, {train.workers} {'worker' if train.workers == 1 else 'workers'} with {each}{gpu}"


def _memory(sequence: Sequence) -> dict[str, str]:
    """Return what a worker needs, {} where that is unknown or, on CPUs, nothing to speak of."""
    needs = needed_memory(sequence)
    if needs is None or (not sequence.train.gpus_per_worker and needs.total < LITTLE):
        return {}
    place = "GPU" if sequence.train.gpus_per_worker else "worker"
    return {"memory": f"about {gib(needs.total)} per {place} ({largest(needs)})"}


def _overlap(sequence: Sequence, machine: Machine) -> str:
    delivery = chosen_delivery(sequence, machine.cpus, machine.gpus).delivery
    return ", beside the next one" if scores_beside(sequence, delivery, machine.cpus, machine.gpus).beside else ""


def _engines(sequence: Sequence, machine: Machine) -> str:
    generate = sequence.generate
    if not uses_sampling(sequence):
        return "nothing is sampled"
    gpu = f" and {generate.gpus_per_replica:g} GPU" if generate.gpus_per_replica else ""
    count = f"{generate.replicas} {'engine' if generate.replicas == 1 else 'engines'}"
    delivery, why = chosen_delivery(sequence, machine.cpus, machine.gpus)
    when = "decided when the run connects" if machine.cpus is None and generate.delivery == "auto" else why
    order = {"stream": "while a stage trains", "store": "before a stage trains"}[delivery]
    beside = [demand.phase for demand in while_training(sequence)] if delivery == "stream" else []
    scorer = f", one scorer with {generate.cpus_per_replica:g} CPU{gpu}" if "scoring" in beside else ""
    return f"{generate.engine}, {count} with {generate.cpus_per_replica:g} CPU{gpu}{scorer}; {order} ({when})"


def evaluators_in_words(evaluate: Evaluate, why: str) -> str:
    """Return what evaluates, and `why` with so many GPUs; "" for the usual one, a process with transformers on CPUs."""
    if not why and (evaluate.backend, evaluate.replicas, evaluate.reserved_gpus) == ("hf", 1, 0):
        return ""
    processes = f"{evaluate.replicas} {'process' if evaluate.replicas == 1 else 'processes'}"
    each = f"{evaluate.reserved_gpus:g} GPU" if evaluate.reserved_gpus else "CPUs"
    return f"{evaluate.backend}, {processes} with {each}{f' ({why})' if why else ''}"


def remaining(plan: Plan) -> StagePlan:
    """Return the sums over the stages that are not done, as a stage named `to do`."""
    todo = [stage for stage in plan.stages if stage.state != "done"]
    totals: dict[str, Any] = {}
    for key in ("steps", "train_tokens", "replay_tokens", "sample_tokens", "hours"):
        values = [getattr(stage, key) for stage in todo]
        totals[key] = None if None in values else sum(values)
    estimated = sorted({name for stage in todo for name in stage.estimated} - {"rows"})
    return StagePlan(number=0, name="to do", rows=None, **totals, mitigations=[], state="", estimated=estimated)
