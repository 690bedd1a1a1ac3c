"""Count what a sweep would run, what its trials share and what they cost. Starts nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from continual.config.schema import Sequence, Stage
from continual.preflight.estimate import epoch_steps, estimated_rows, stored_rows
from continual.preflight.model_facts import read_model
from continual.preflight.tokenizer_facts import read_tokenizer
from continual.store.files import digest
from continual.sweep.halving import judge
from continual.sweep.points import short_keys
from continual.sweep.rehearsal import rehearse
from continual.sweep.spec import Ablation, LoadedAblation
from continual.sweep.trials import Trial

UNKNOWN_STEPS = 1000
"""Assumed steps of a stage in epochs whose rows cannot be counted; the preview shows `?` for them."""


@dataclass
class Parts:
    """The distinct parts of some sequences, each of which is made once.

    `samples` has the tokens of every sample set (an upper bound), `sample_uses` counts its uses. `trained` has the
    steps of every training (None if they cannot be known) and the tokens of a step. `sources` are the data sets,
    `lengths` their (rows, whether estimated).
    """

    samples: dict[str, int] = field(default_factory=dict)
    sample_uses: int = 0
    trained: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)
    lengths: dict[str, tuple[int | None, bool]] = field(default_factory=dict)

    def add(self, sequence: Sequence) -> None:
        """Add the parts of a sequence that was checked."""
        train = sequence.train
        steps = [self._steps(sequence, stage) for stage in sequence.stages]
        rehearsed = rehearse(sequence, [known or UNKNOWN_STEPS for known in steps])
        for share, known in zip(rehearsed, steps, strict=True):
            self.sample_uses += len(share.samples)
            for address, tokens in share.samples.items():
                self.samples[address] = max(tokens, self.samples.get(address, 0))  # a set grows
            self.trained[share.training] = (known, train.batch_tokens)
        sources = [*(stage.data for stage in sequence.stages), *(text.data for text in sequence.evaluate.texts)]
        self.sources |= {digest([source.model_dump(mode="json"), train.row_tokens]) for source in sources}

    def _steps(self, sequence: Sequence, stage: Stage) -> int | None:
        """Return the optimizer steps of a stage, None if they cannot be known."""
        if stage.steps:
            return stage.steps
        tokens = sequence.train.row_tokens
        key = digest([stage.data.model_dump(mode="json"), sequence.model.model_dump(mode="json"), tokens])
        if key not in self.lengths:
            rows, estimated = stored_rows(Path(sequence.storage) / "store", stage.data, tokens), False
            if rows is None:
                tokenizer = read_tokenizer(sequence.model, read_model(sequence.model)[0].folder)
                rows, estimated = estimated_rows(stage.data, tokenizer, tokens)[0], True
            self.lengths[key] = rows, estimated
        rows = self.lengths[key][0]
        return epoch_steps(stage.epochs or 1.0, rows, sequence.train.batch_rows) if rows else None

    def training(self) -> str:
        """Return the steps and the tasks' tokens of all trainings in words; `~` says that a length is an estimate."""
        known = [(steps, steps * tokens) for steps, tokens in self.trained.values() if steps is not None]
        if len(known) < len(self.trained):
            return "? steps, ? tokens"
        about = "~" if any(estimated for _, estimated in self.lengths.values()) else ""
        steps, tokens = (f"{about}{sum(numbers):,}" for numbers in zip(*known, strict=True))
        return f"{steps} steps, {tokens} tokens"


def preview_text(source: LoadedAblation, trials: Mapping[str, Trial], states: Mapping[str, str]) -> str:
    """Preview trials that were checked; `states` are those of the trials that are not new, by name."""
    ablation, parts = source.ablation, Parts()
    for trial in trials.values():
        parts.add(trial.loaded.sequence)
    first = next(iter(trials.values()))
    searched = ablation.search == "optuna"
    of = "of its corners " if searched else ""
    count = (ablation.trials or 0) * len(ablation.seeds or [0]) if searched else len(trials)
    stages = sum(trial.stages for trial in trials.values())
    sets, tokens = len(parts.samples), sum(parts.samples.values())
    facts = [
        ("trials", f"{count} = {' x '.join(_factors(ablation))}, {ablation.concurrency} at the same time"),
        ("metric", " and ".join(ablation.metric)),
        *([("halving", _halving(ablation, first.loaded.sequence))] if ablation.scheduler == "asha" else []),
        ("data", f"{len(parts.sources)} sources, each read and tokenized once"),
        ("samples", f"{sets} sets {of}for {parts.sample_uses} uses, <= {tokens:,} tokens"),
        ("training", f"{len(parts.trained)} stages {of}for {stages}: {parts.training()}"),
        ("runs", f"{first.loaded.sequence.storage}/{ablation.name}-*"),
    ]
    lines = [f"{ablation.name} ({source.file}): {source.base} under {count} settings and seeds"]
    lines += [f"  {name:<9} {value}" for name, value in facts]
    if searched:
        return "\n".join([*lines, "  (the search chooses its points as it runs)"])
    width = max(len(name) for name in trials)
    return "\n".join([*lines, "", *(f"  {name:<{width}}  {states.get(name, 'new')}" for name in trials)])


def _halving(ablation: Ablation, sequence: Sequence) -> str:
    """Return what is stopped when, and by what points are judged after every stage but the last."""
    names = {stage: judge(sequence, ablation.metric, stage) for stage in range(1, len(sequence.stages))}
    by = [f"after stage {stage} by {name}" if name else f"nothing after stage {stage}" for stage, name in names.items()]
    seeds = len(ablation.seeds or [0])
    means = f", each the mean over its {seeds} seeds" if seeds > 1 else ""
    text = (
        f"the best 1/{ablation.reduction_factor:g} of the points continue{means}: {', '.join(by) or 'one stage only'}"
    )
    first = ablation.metric[0]
    passed = first not in names.values() and names
    return f"{text} ({first} does not show there what was learned)" if passed else text


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
