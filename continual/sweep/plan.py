"""What a sweep would run, what its trials share and what they cost. Starts nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from continual.config.schema import Sequence
from continual.preflight.estimate import epoch_steps, estimated_rows, stored_rows
from continual.preflight.model_facts import read_model
from continual.preflight.tokenizer_facts import read_tokenizer
from continual.store.files import digest
from continual.sweep.rehearsal import rehearse
from continual.sweep.schema import LoadedAblation
from continual.sweep.space import sizes
from continual.sweep.trials import Trial

UNKNOWN_STEPS = 1000
"""Steps of a stage in epochs whose rows cannot be counted; the plan says that they are not known."""


@dataclass(frozen=True)
class SweepPlan:
    """Numbers for all trials (`all_*`) and for what is distinct among them, which is what will be made.

    Tokens and steps are None where a stage's length cannot be told; `about` says that one was estimated. Sampled tokens
    are the most that there can be.
    """

    trials: int
    all_sample_sets: int
    sample_sets: int
    sample_tokens: int
    all_stages: int
    stages: int
    steps: int | None
    task_tokens: int | None
    data_sets: int
    about: bool


def make_sweep_plan(trials: Iterable[Trial]) -> SweepPlan:
    """The plan of trials that were checked."""
    lengths: dict[str, tuple[int | None, bool]] = {}
    samples: dict[str, int] = {}
    trained: dict[str, tuple[int | None, int]] = {}
    data: set[str] = set()
    listed = list(trials)
    all_samples = 0
    for trial in listed:
        sequence = trial.loaded.sequence
        steps = [_steps(sequence, number, lengths) for number in range(1, len(sequence.stages) + 1)]
        shares = rehearse(sequence, [known or UNKNOWN_STEPS for known in steps])
        for share, known in zip(shares, steps, strict=True):
            all_samples += len(share.samples)
            samples |= share.samples
            trained[share.training] = (known, sequence.train.batch_tokens)
        sources = [*(stage.data for stage in sequence.stages), *(text.data for text in sequence.evaluate.texts)]
        data |= {digest([source.model_dump(mode="json"), sequence.train.row_tokens]) for source in sources}
    known_steps = [steps for steps, _ in trained.values()]
    complete = None not in known_steps
    return SweepPlan(
        trials=len(listed),
        all_sample_sets=all_samples,
        sample_sets=len(samples),
        sample_tokens=sum(samples.values()),
        all_stages=sum(trial.stages for trial in listed),
        stages=len(trained),
        steps=sum(steps or 0 for steps in known_steps) if complete else None,
        task_tokens=sum((steps or 0) * tokens for steps, tokens in trained.values()) if complete else None,
        data_sets=len(data),
        about=any(estimated for _, estimated in lengths.values()),
    )


def _steps(sequence: Sequence, number: int, lengths: dict[str, tuple[int | None, bool]]) -> int | None:
    """Optimizer steps of a stage; what a source's rows were counted to is kept in `lengths`."""
    stage, train = sequence.stages[number - 1], sequence.train
    if stage.steps:
        return stage.steps
    key = digest([stage.data.model_dump(mode="json"), sequence.model.model_dump(mode="json"), train.row_tokens])
    if key not in lengths:
        rows, estimated = stored_rows(Path(sequence.storage) / "store", stage.data, train.row_tokens), False
        if rows is None:
            tokenizer = read_tokenizer(sequence.model, read_model(sequence.model)[0].folder)
            rows, estimated = estimated_rows(stage.data, tokenizer, train.row_tokens)[0], True
        lengths[key] = rows, estimated
    rows = lengths[key][0]
    return epoch_steps(stage.epochs or 1.0, rows, train.batch_rows) if rows else None


def render_sweep(
    source: LoadedAblation, trials: Mapping[str, Trial], plan: SweepPlan, states: Mapping[str, str]
) -> str:
    """The plan as text. `states`: what is said of trials that are not new, by name."""
    ablation = source.ablation
    first = next(iter(trials.values()))
    about = "~" if plan.about else ""
    searched = ablation.search == "optuna"
    of = "of its corners " if searched else ""
    steps = "?" if plan.steps is None else f"{about}{plan.steps:,}"
    tokens = "?" if plan.task_tokens is None else f"{about}{plan.task_tokens:,}"
    asha = f"; asha, the best 1/{ablation.reduction_factor:g} of every stage go on"
    count = (ablation.trials or 0) * len(ablation.seeds or [0]) if searched else plan.trials
    facts = [
        ("trials", f"{count} = {' x '.join(sizes(ablation))}, {ablation.concurrency} at the same time"),
        ("metric", " and ".join(ablation.metric) + asha * (ablation.scheduler == "asha")),
        ("data", f"{plan.data_sets} sources, each read and tokenised once"),
        ("samples", f"{plan.sample_sets} sets {of}for {plan.all_sample_sets} uses, <= {plan.sample_tokens:,} tokens"),
        ("training", f"{plan.stages} stages {of}for {plan.all_stages}: {steps} steps, {tokens} of the tasks' tokens"),
        ("runs", f"{first.loaded.sequence.storage}/{ablation.name}-*"),
    ]
    lines = [f"{ablation.name} ({source.file}): {source.base} under {count} settings and seeds"]
    lines += [f"  {name:<9} {value}" for name, value in facts]
    if searched:
        return "\n".join([*lines, "  (the search finds its points on the way)"])
    width = max(len(name) for name in trials)
    rows = [f"  {name:<{width}}  {states.get(name, 'new')}" for name in trials]
    return "\n".join([*lines, "", *rows])
