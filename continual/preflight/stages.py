"""The stages of a sequence as mitigations see them, and which mitigations act in each: the one rule for all rooms."""

from collections.abc import Iterator
from dataclasses import replace

from continual.config.schema import Generate, ModelSource, Sequence
from continual.contract.mitigation import Mitigation
from continual.contract.models import ModelFacts
from continual.contract.view import StageView
from continual.preflight.model_facts import cannot_sample, read_model
from continual.preflight.tokenizer_facts import read_tokenizer


def stage_view(sequence: Sequence, number: int, steps: int | None = None) -> StageView:
    """Return what mitigations may know of stage `number` (1-based); `steps` where they are known from counted rows."""
    stage = sequence.stages[number - 1]
    return StageView(
        number=number,
        name=stage.name,
        steps=stage.steps or steps,
        batch_rows=sequence.train.batch_rows,
        row_tokens=sequence.train.row_tokens,
        strategy=sequence.train.strategy,
        precision=sequence.train.precision,
        dtype=sequence.model.dtype,
        seed=sequence.seed,
        random_start=sequence.model.type == "python",
        has_prompts=stage.data.has_prompts,
        start_tokens=tuple(earlier.start_token for earlier in sequence.stages[: number - 1] if earlier.start_token),
        facts=lambda source: model_facts(sequence.model if source is None else pretrained(source), sequence.generate),
    )


def model_facts(model: ModelSource, generate: Generate) -> ModelFacts:
    """Return what the files of a model tell. Raises ConfigurationError for a model that cannot load."""
    facts, _ = read_model(model)
    tokenizer = read_tokenizer(model, facts.folder)
    reason = cannot_sample(generate, facts)
    template = tokenizer.chat_template if tokenizer else None
    return ModelFacts(template, facts.positions, reason.partition("; ")[0] if reason else None)


def pretrained(source: str) -> ModelSource:
    """Return the model of a folder or hub id."""
    return ModelSource.model_validate({"type": "pretrained", "source": source})


def entries(sequence: Sequence, number: int) -> list[tuple[str, Mitigation]]:
    """Return the mitigations that stage `number` (1-based) lists, each with its key in the YAML."""
    own = sequence.stages[number - 1].mitigation is not None
    prefix = f"stages.{number - 1}.mitigation" if own else "mitigation"
    return [(f"{prefix}.{place}", mitigation) for place, mitigation in enumerate(sequence.mitigations(number))]


def acting(sequence: Sequence, number: int) -> list[tuple[str, Mitigation]]:
    """Return the mitigations that do something in stage `number`, each with its key in the YAML."""
    view = stage_view(sequence, number)
    return [(key, mitigation) for key, mitigation in entries(sequence, number) if mitigation.active(view)]


def models_asked(sequence: Sequence) -> dict[str, str]:
    """Return the models whose facts mitigations ask for in their checks, each with the key of one that asks."""
    asked: dict[str, str] = {}
    for number in range(1, len(sequence.stages) + 1):
        view = stage_view(sequence, number)
        for key, mitigation in acting(sequence, number):
            others = [other for _, other in entries(sequence, number) if other is not mitigation]

            def facts(source: str | None, key: str = key, view: StageView = view) -> ModelFacts:
                if source is not None:
                    asked.setdefault(source, key)
                return view.facts(source)

            mitigation.check(replace(view, facts=facts), others)
    return asked


def _all_acting(sequence: Sequence) -> Iterator[tuple[Mitigation, StageView]]:
    """Yield the mitigations that do something, stage by stage, with the stage."""
    for number in range(1, len(sequence.stages) + 1):
        view = stage_view(sequence, number)
        yield from ((mitigation, view) for _, mitigation in acting(sequence, number))


def uses_sampling(sequence: Sequence) -> bool:
    """Return whether any mitigation samples in any stage."""
    return any(mitigation.sampled_tokens(view) > 0 for mitigation, view in _all_acting(sequence))


def samples_in_order(sequence: Sequence) -> bool:
    """Return whether some stage could train while its samples are made."""
    return any(m.sampled_tokens(view) > 0 and not m.needs_first(view) for m, view in _all_acting(sequence))


def scores_samples(sequence: Sequence) -> bool:
    """Return whether some stage could train while its samples are made and scored."""
    return any(m.scores_samples(view) and not m.needs_first(view) for m, view in _all_acting(sequence))


def needed_first(sequence: Sequence) -> dict[str, str]:
    """Return why stages cannot train before all that a mitigation samples and scores is there, by its label."""
    reasons = [(mitigation.label, mitigation.needs_first(view)) for mitigation, view in _all_acting(sequence)]
    return {label: reason for label, reason in reasons if reason}
