"""Count what a sweep would run, what its trials share and what they cost. Starts nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from continual.config.schema import Sequence
from continual.preflight.estimate import epoch_steps, estimated_rows, stored_rows
from continual.preflight.model_facts import read_model
from continual.preflight.tokenizer_facts import read_tokenizer
from continual.store.files import digest
from continual.sweep.points import short_keys
from continual.sweep.rehearsal import rehearse
from continual.sweep.spec import Ablation, LoadedAblation
from continual.sweep.trials import Trial

UNKNOWN_STEPS = 1000
"""Assumed steps of a stage in epochs whose rows cannot be counted; the preview shows `?` for them."""


@dataclass(frozen=True)
class Preview:
    """Numbers over all trials (`all_*`), and over the distinct parts among them, which are made once.

    Steps and tokens are None if a stage's length cannot be known; `about` says that some length is an estimate.
    `sample_tokens` is an upper bound.
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


def make_preview(trials: Iterable[Trial]) -> Preview:
    """Preview trials that were checked."""
    trials = list(trials)
    lengths: dict[str, tuple[int | None, bool]] = {}
    samples: dict[str, int] = {}
    trained: dict[str, tuple[int | None, int]] = {}
    data: set[str] = set()
    all_samples = 0
    for trial in trials:
        sequence = trial.loaded.sequence
        steps = [_steps(sequence, number, lengths) for number in range(1, len(sequence.stages) + 1)]
        rehearsed = rehearse(sequence, [known or UNKNOWN_STEPS for known in steps])
        for stage, known in zip(rehearsed, steps, strict=True):
            all_samples += len(stage.samples)
            samples |= stage.samples
            trained[stage.training] = (known, sequence.train.batch_tokens)
        sources = [*(stage.data for stage in sequence.stages), *(text.data for text in sequence.evaluate.texts)]
        data |= {digest([source.model_dump(mode="json"), sequence.train.row_tokens]) for source in sources}
    complete = all(steps is not None for steps, _ in trained.values())
    return Preview(
        trials=len(trials),
        all_sample_sets=all_samples,
        sample_sets=len(samples),
        sample_tokens=sum(samples.values()),
        all_stages=sum(trial.stages for trial in trials),
        stages=len(trained),
        steps=sum(steps or 0 for steps, _ in trained.values()) if complete else None,
        task_tokens=sum((steps or 0) * tokens for steps, tokens in trained.values()) if complete else None,
        data_sets=len(data),
        about=any(estimated for _, estimated in lengths.values()),
    )


def _steps(sequence: Sequence, number: int, lengths: dict[str, tuple[int | None, bool]]) -> int | None:
    """Return the optimizer steps of a stage; `lengths` keeps the (rows, whether estimated) of the sources."""
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


def render_preview(
    source: LoadedAblation, trials: Mapping[str, Trial], preview: Preview, states: Mapping[str, str]
) -> str:
    """Write the preview as text; `states` are those of the trials that are not new, by name."""
    ablation = source.ablation
    first = next(iter(trials.values()))
    about = "~" if preview.about else ""
    searched = ablation.search == "optuna"
    of = "of its corners " if searched else ""
    steps = "?" if preview.steps is None else f"{about}{preview.steps:,}"
    tokens = "?" if preview.task_tokens is None else f"{about}{preview.task_tokens:,}"
    asha = f"; asha, the best 1/{ablation.reduction_factor:g} continue after every stage"
    count = (ablation.trials or 0) * len(ablation.seeds or [0]) if searched else preview.trials
    facts = [
        ("trials", f"{count} = {' x '.join(_factors(ablation))}, {ablation.concurrency} at the same time"),
        ("metric", " and ".join(ablation.metric) + asha * (ablation.scheduler == "asha")),
        ("data", f"{preview.data_sets} sources, each read and tokenized once"),
        (
            "samples",
            f"{preview.sample_sets} sets {of}for {preview.all_sample_sets} uses, <= {preview.sample_tokens:,} tokens",
        ),
        ("training", f"{preview.stages} stages {of}for {preview.all_stages}: {steps} steps, {tokens} task tokens"),
        ("runs", f"{first.loaded.sequence.storage}/{ablation.name}-*"),
    ]
    lines = [f"{ablation.name} ({source.file}): {source.base} under {count} settings and seeds"]
    lines += [f"  {name:<9} {value}" for name, value in facts]
    if searched:
        return "\n".join([*lines, "  (the search chooses its points as it runs)"])
    width = max(len(name) for name in trials)
    return "\n".join([*lines, "", *(f"  {name:<{width}}  {states.get(name, 'new')}" for name in trials)])


def _factors(ablation: Ablation) -> Iterator[str]:
    """Yield, in words, the numbers whose product is the number of trials."""
    short = short_keys(ablation.space)
    drawn = ablation.search != "grid"
    if drawn:
        free = [short[key] for key, d in ablation.space.items() if d.grid is None]
        yield f"{ablation.trials} draws of {', '.join(free)} ({ablation.search})"
    for key, dimension in ablation.space.items():
        if not drawn or dimension.grid is not None:
            yield f"{len(dimension.values)} {short[key]}"
    seeds = len(ablation.seeds or [0])
    yield f"{seeds} seed{'s' * (seeds > 1)}"
