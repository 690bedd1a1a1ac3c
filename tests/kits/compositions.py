"""Random lists of mitigations, what they must do by a table of their types, and stages to run them in without Ray."""

import dataclasses
import io
import random
from pathlib import Path
from typing import Any

from continual.contract.context import StageRecord
from continual.contract.models import ModelRef
from continual.contract.registry import MITIGATIONS
from continual.contract.requests import SampleRequest
from continual.preflight.stages import stage_view
from continual.run.services import StageContext
from continual.run.stage import build_job
from continual.show.terminal import Terminal
from continual.store import Artefact, Store
from continual.training.job import TrainJob
from tests.conftest import ROOT
from tests.kits import baselines as kit

Entry = dict[str, Any]

LISTS = 30
STEPS = {1: 3, 2: 4}
LEFT_OUT = {"instruction_synthesis", "predicted_replay", "repair"}
"""A chat model would have to be asked and to judge; replay by forecast needs a file of forecasts; and `repair` does as
`weight_average` does in a list: it chooses the model that continues."""
REPLAYS = ("context_free", "contextual", "pretraining_subset", "task_replay")
ANCHORS = ("ewc", "l2_start")


def types() -> list[str]:
    return [kind for kind in MITIGATIONS.names() if kind not in LEFT_OUT]


def draw(number: int) -> list[Entry]:
    """The pair or triple of that number: any types, the same one twice too, with random options."""
    chance = random.Random(number)
    found: list[Entry] = []
    for place, kind in enumerate(chance.choices(types(), k=chance.choice([2, 3]))):
        doubled = any(entry["type"] == kind for entry in found)
        found.append({"type": kind, **({"name": f"again{place}"} if doubled else {}), **_options(kind, chance)})
    return found


def _options(kind: str, chance: random.Random) -> Entry:
    pick = chance.choice
    if kind in REPLAYS:
        return {"ratio": pick([0.25, 0.5, 1.0]), "weight": pick([0.3, 1.0, 2.5]), **_replay(kind, chance)}
    options: dict[str, Entry] = {
        "easy_samples": {"per": pick(["sample", "token"]), "normalise": pick(["none", "mean"])},
        "ewc": {
            "weight": pick([0.5, 10.0]),
            "decay": pick([0.5, 1.0]),
            "estimate_on": pick(["task", "context_free"]),
            "documents": 8,
        },
        "l2_start": {"weight": pick([1e-3, 0.1]), "centre": pick(["start", "stage_start"])},
        "lora": {"rank": pick([1, 4]), "alpha": pick([None, 8.0]), "targets": pick([None, ["q_proj", "v_proj"]])},
        "weight_average": {
            "alpha": pick([0.25, 0.5]),
            "further": pick([[], [0.75]]),
            "before": pick(["start", "stage_start"]),
        },
    }
    return options[kind]


def _replay(kind: str, chance: random.Random) -> Entry:
    pick = chance.choice
    if kind == "task_replay":
        return {"buffer_rows": pick([None, 5])}
    loss = pick(["nll", "kl"])
    found: Entry = {"loss": loss, "model": pick(["start", "stage_start"]), "held_out": pick([1, 3])}
    if kind == "pretraining_subset":
        found["data"] = {"type": "text", "path": str(ROOT / "LICENSE")}
    if loss == "kl" and kind != "contextual":
        found |= pick([{}, {"teacher": "cached", "teacher_top_k": pick([3, kit.VOCABULARY])}])
    if loss == "kl" and kind == "context_free":
        found |= pick([{}, {"weight": "auto", "drift_budget": pick([1e-3, 0.1]), "adjust_every": pick([1, 2])}])
    return found


def label(entry: Entry) -> str:
    return str(entry.get("name", entry["type"]))


def refused(entries: list[Entry]) -> bool:
    """Whether the list makes no sense: two adapters, two who choose the model, two budgets, pulls on an adapter."""
    kinds = [entry["type"] for entry in entries]
    return (
        any(kinds.count(kind) > 1 for kind in ("lora", "weight_average"))
        or ("lora" in kinds and any(kind in kinds for kind in ANCHORS))
        or [entry.get("weight") for entry in entries].count("auto") > 1
    )


def streams(entries: list[Entry], stage: int) -> dict[str, Entry]:
    """By name the entries that must replay in a stage: nothing is there to be replayed before the second."""
    return {label(e): e for e in entries if e["type"] in REPLAYS and (stage > 1 or e["type"] != "task_replay")}


def anchors(entries: list[Entry], stage: int) -> dict[str, Entry]:
    """By name the entries that must pull in a stage: before the second there are no task rows to take F from."""
    late = [e for e in entries if e["type"] == "ewc" and e["estimate_on"] == "task" and stage == 1]
    return {label(e): e for e in entries if e["type"] in ANCHORS and e not in late}


class Offline(kit.Offline):
    """Samples of the model, its answers and pretraining text are three different sets of rows that are there."""

    def sample(self, request: SampleRequest) -> Artefact:
        return self.store.artefact("rows", {"test": "answers" if request.start == "prompts" else "samples"})

    def read(self, source: Any) -> Artefact:
        return self.store.artefact("rows", {"test": "text"})


def first_stage(folder: Path, entries: list[Entry], **train: Any) -> StageContext:
    """Stage 1 of two; all contexts of a folder share its store and its start model."""
    store = Store(folder / "store")
    documents = {"one": 50, "two": 60, "samples": 90, "answers": 70, "text": 80}
    rows = {
        name: kit.stored(store, name, kit.packed(seed, count)) for seed, (name, count) in enumerate(documents.items())
    }
    sequence = kit.sequence(folder, entries, **train)
    start = kit.models()[0]
    return Offline(
        sequence=sequence,
        view=dataclasses.replace(stage_view(sequence, 1), steps=STEPS[1]),
        store=store,
        terminal=Terminal(folder / "log.txt", io.StringIO()),
        start=start,
        stage_start=start,
        earlier=[],
        rows=rows["one"],
    )


def next_stage(ctx: StageContext, model: ModelRef) -> StageContext:
    """Stage 2 after `ctx`, from the model that continues."""
    two = ctx.store.artefact("rows", {"test": "two"})
    done = StageRecord(ctx.view.name, model, ctx.task_rows, None)
    view = dataclasses.replace(stage_view(ctx.sequence, 2), steps=STEPS[2])
    return dataclasses.replace(ctx, view=view, stage_start=model, earlier=[done], rows=two)


def with_list(ctx: StageContext, entries: list[Entry]) -> StageContext:
    """The same stage of the same models with another list."""
    value = ctx.sequence.model_dump() | {"mitigation": entries}
    return dataclasses.replace(ctx, sequence=type(ctx.sequence).model_validate(value))


def build(ctx: StageContext, folder: Path) -> tuple[TrainJob, list[Any]]:
    """The stage's job in `folder`, and its active mitigations."""
    job = build_job(ctx, folder, 1)
    mitigations = list(job.mitigations)
    return job, mitigations
