"""The arms: every method and the telling combinations, as mitigation lists of the two sequences."""

from dataclasses import dataclass, field
from typing import Any

Mitigations = list[dict[str, Any]]


@dataclass(frozen=True)
class Sequence:
    """A sequence of the table: where its numbers stand in `summary.json`, and its arms.

    `new` and `old` name a task or a text of the score matrix; `target` is the new score at which arms are compared
    besides at equal steps. `strengths` holds arms whose strength is looked for first, on a seed of its own: the largest
    that costs at most `cost` of the plain arm's new score.
    """

    name: str
    stage: str
    new: str
    old: str
    unit: str
    target: float
    cost: float
    arms: dict[str, Mitigations]
    strengths: dict[str, dict[float, Mitigations]]
    abilities: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


OTHERS = {
    "predicted_replay": "benchmarks.associations compares it with replay of as many other documents",
    "repair": "not measured yet",
}


def context_free(**options: Any) -> dict[str, Any]:
    return {"type": "context_free", **options}


def _arithmetic() -> Sequence:
    # One sample set for all arms: samples that begin with <reversal>, four to a row.
    own = {"ratio": 0.5, "start": "tasks", "samples": 4096, "sample_tokens": 17}
    kl = context_free(**own)
    reversal = {
        "type": "python",
        "function": "benchmarks.arithmetic.tasks:rows",
        "arguments": {"task": "reversal", "digits": 4, "count": 10240, "seed": 1},
    }
    real = {"type": "pretraining_subset", "data": reversal, "ratio": 0.5}
    lora = {"type": "lora", "rank": 16, "from_stage": 2}
    return Sequence(
        name="arithmetic",
        stage="2-sort",
        new="sort4",
        old="reversal4",
        unit="accuracy",
        target=0.95,
        cost=0.05,
        arms={
            "plain": [],
            "context_free kl": [kl],
            "context_free nll": [context_free(**own, loss="nll")],
            "context_free kl, cached teacher": [context_free(**own, teacher="cached", teacher_top_k=8)],
            "context_free kl, drift budget 0.05": [context_free(**own, weight="auto", drift_budget=0.05)],
            "pretraining_subset nll": [{**real, "loss": "nll"}],
            "pretraining_subset kl": [{**real, "loss": "kl"}],
            "task_replay": [{"type": "task_replay", "ratio": 0.5}],
            "contextual": [{"type": "contextual", "ratio": 0.5, "model": "stage_start", "answers": 4096}],
            "easy_samples": [{"type": "easy_samples"}],
            "lora": [lora],
            "weight_average": [{"type": "weight_average", "alpha": 0.5, "further": [0.25, 0.75]}],
            "easy_samples + context_free kl": [{"type": "easy_samples", "normalise": "mean"}, kl],
            "lora + context_free kl": [lora, kl],
        },
        strengths={
            "l2_start": {w: [{"type": "l2_start", "weight": w, "centre": "stage_start"}] for w in (1.0, 10.0)},
            "ewc": {w: [{"type": "ewc", "weight": w}] for w in (1e3, 1e4)},
        },
        left_out={**OTHERS, "instruction_synthesis": "the model has no chat template"},
    )


def _stories() -> Sequence:
    own = {"ratio": 1.0, "run_on": True, "samples": 1000}
    kl = context_free(**own)

    def text(function: str, **arguments: Any) -> dict[str, Any]:
        source = {"type": "python", "function": f"benchmarks.stories.texts:{function}", "arguments": arguments}
        return {"type": "pretraining_subset", "data": {**source, "end_token": False, "overlong": "cut"}, "ratio": 1.0}

    real, foreign = text("tinystories", split="train", limit=900), text("c4")
    lora = {"type": "lora", "rank": 16}
    return Sequence(
        name="stories",
        stage="1-shakespeare",
        new="shakespeare",
        old="tinystories",
        unit="nats/token",
        target=-3.0,
        cost=0.2,
        arms={
            "plain": [],
            "context_free kl": [kl],
            "context_free nll": [context_free(**own, loss="nll")],
            "context_free kl, cached teacher": [context_free(**own, teacher="cached", teacher_top_k=64)],
            "context_free kl, drift budget 0.2": [context_free(**own, weight="auto", drift_budget=0.2)],
            "pretraining_subset nll": [{**real, "loss": "nll"}],
            "pretraining_subset kl": [{**real, "loss": "kl"}],
            "foreign text (C4) nll": [{**foreign, "loss": "nll"}],
            "foreign text (C4) kl": [{**foreign, "loss": "kl"}],
            "easy_samples": [{"type": "easy_samples"}],
            "lora": [lora],
            "weight_average": [{"type": "weight_average", "alpha": 0.5, "further": [0.25, 0.75]}],
            "easy_samples + context_free kl": [{"type": "easy_samples", "normalise": "mean"}, kl],
            "lora + context_free kl": [lora, kl],
        },
        strengths={
            "l2_start": {w: [{"type": "l2_start", "weight": w}] for w in (0.1, 1.0)},
            "ewc": {w: [{"type": "ewc", "estimate_on": "context_free", "weight": w}] for w in (0.03, 0.3)},
        },
        abilities=("stories_principle_A_case_1", "stories_principle_A_domain_1"),
        left_out={
            **OTHERS,
            "instruction_synthesis": "the model has no chat template",
            "contextual": "running text has no prompts",
            "task_replay": "there is no earlier stage",
        },
    )


SEQUENCES = {one.name: one for one in (_arithmetic(), _stories())}
