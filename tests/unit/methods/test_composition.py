"""Random pairs and triples of methods in the real loop: refused with a reason, or every part of every method counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from continual.contract.models import ModelRef
from continual.data.rows import RowReader
from continual.errors import ConfigurationError
from continual.models import model_hash
from continual.preflight.check_methods import check_methods
from continual.run.services import StageContext
from continual.testing.loop import run
from continual.training.job import TrainJob
from continual.training.order import shuffled, step_positions
from tests.kits import baselines as kit
from tests.kits import compositions as lists

DRAWN = [lists.draw(number) for number in range(lists.LISTS)]


def reason(folder: Path, entries: list[lists.Entry]) -> str | None:
    """Why the list is refused at configuration time, or None."""
    try:
        check_methods(kit.sequence(folder, entries), None)
    except ConfigurationError as error:
        assert error.key.startswith("mitigation.")
        assert error.problem
        assert error.fix
        return str(error)
    return None


def test_the_draw_covers_the_registry_and_most_of_it_runs(tmp_path: Path) -> None:
    assert {entry["type"] for entries in DRAWN for entry in entries} == set(lists.types())
    assert {len(entries) for entries in DRAWN} == {2, 3}
    assert any(entry.get("weight") == "auto" for entries in DRAWN for entry in entries)
    assert sum(reason(tmp_path, entries) is None for entries in DRAWN) >= 22


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds what all lists have in common: rows, the start model, what it says about them."""
    return tmp_path_factory.mktemp("composition")


@pytest.mark.parametrize(
    "number", range(lists.LISTS), ids=lambda number: f"{number}-" + "+".join(map(lists.label, DRAWN[number]))
)
def test_a_list_is_refused_or_all_of_it_counts(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kit.without_ray(monkeypatch)
    entries = DRAWN[number]
    found = reason(tmp_path, entries)
    assert (found is not None) == lists.refused(entries), f"{entries}: {found}"
    if found is not None:
        return
    first = lists.first_stage(models, entries)
    trained = runs_whole(first, entries, tmp_path / "one")
    second = lists.next_stage(first, trained)
    runs_whole(second, entries, tmp_path / "two")
    equals_its_parts(second, entries, tmp_path / "parts")


def runs_whole(ctx: StageContext, entries: list[lists.Entry], folder: Path) -> ModelRef:
    """Train the stage and look for every method's part in what it leaves; returns the model that continues."""
    job, mitigations = lists.build(ctx, folder)
    streams, anchors = lists.streams(entries, ctx.view.number), lists.anchors(entries, ctx.view.number)
    records, worker = run(job)
    names = ["task", *streams]
    assert [record["step"] for record in records] == list(range(1, (ctx.view.steps or 0) + 1))
    for record in records:
        assert list(record["loss"]) == [*names, *(f"anchor/{name}" for name in anchors)]
        assert all(np.isfinite([*record["loss"].values(), record["gradient_norm"]]))
        assert list(record["weight"]) == list(record["rows"]) == names
    measured = [name for name, entry in streams.items() if entry.get("loss") == "kl"]
    assert list(records[-1]["drift"]) == measured
    for name, entry in streams.items():
        path = [record["weight"][name] for record in records]
        if entry["weight"] == "auto":
            due = range(entry["adjust_every"], (ctx.view.steps or 0), entry["adjust_every"])
            assert all(path[step] != path[step - 1] for step in due), path
        else:
            assert path == [entry["weight"]] * (ctx.view.steps or 0)
    adapted = any(entry["type"] == "lora" for entry in entries)
    trained = [name for name, p in worker.strategy.module.model.named_parameters() if p.requires_grad]
    assert trained
    assert all(("lora_" in name) == adapted for name in trained)
    task_weights_multiply(ctx, job, sum(entry["type"] == "easy_samples" for entry in entries))
    worker.export(job.export)
    return continues(ctx, mitigations, entries, ModelRef(str(job.export), model_hash(job.export)))


def task_weights_multiply(ctx: StageContext, job: TrainJob, count: int) -> None:
    """The task's weights in the first batch are the rows' own times every method's column."""
    columns = job.streams[0].token_weights
    assert len(columns) == count
    reader = RowReader(ctx.task_rows)
    numbers = shuffled(job.seed, "task", step_positions(kit.ROWS, 0), len(reader))
    expected = reader.take(numbers)["weights"]
    for column in columns:
        expected = expected * RowReader(column).take(numbers, ("weights",))["weights"]
    np.testing.assert_array_equal(kit.batch_of(job, 0)["task"]["weights"].numpy(), expected)


def tensors(ref: ModelRef) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(ref.path, dtype=torch.float32).state_dict())


def continues(ctx: StageContext, mitigations: list[Any], entries: list[lists.Entry], trained: ModelRef) -> ModelRef:
    """The model that continues: a plain one that has moved, averaged as the list says."""
    before, after = tensors(ctx.stage_start), tensors(trained)
    assert set(after) == set(before)
    assert any(not torch.equal(after[name], before[name]) for name in after)
    found = [candidate for one in mitigations for candidate in one.after_training(ctx, trained)]
    averages = [entry for entry in entries if entry["type"] == "weight_average"]
    assert len(found) == sum(1 + len(entry["further"]) for entry in averages)
    if not averages:
        return trained
    [entry] = averages
    other = tensors(ctx.start) if entry["before"] == "start" else before
    for name, value in tensors(found[0].model).items():
        expected = (1 - entry["alpha"]) * other[name] + entry["alpha"] * after[name]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    return found[0].model


def first_step(
    ctx: StageContext, entries: list[lists.Entry], folder: Path
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients (float64) of the first batch, a little way off the model before the stage.

    There the KL to it, and its gradient, are not nothing.
    """
    job, _ = lists.build(lists.with_list(ctx, entries), folder)
    worker, batch = kit.worker_of(job), kit.batch_of(job, 0)
    model = worker.strategy.module.model
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    means = worker.stepper.forward_backward(batch, worker.stepper.counts(batch, stop=False)[0])
    losses = worker.stepper.named(means.tolist())
    penalties = worker.strategy.add_penalties(worker.stepper.penalties)
    losses |= {f"anchor/{name}": float(value) for name, value in penalties.items()}
    return losses, {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def equals_its_parts(ctx: StageContext, entries: list[lists.Entry], folder: Path) -> None:
    """Streams and anchors have the losses that they have alone, and their gradients, times their weights, add up.

    An adapter is part of all that is compared; the task's own rows are compared under all weights on them.
    """
    adapter = [entry for entry in entries if entry["type"] == "lora"]
    weighing = [entry for entry in entries if entry["type"] == "easy_samples"]
    losses, gradients = first_step(ctx, entries, folder / "all")
    _, plain = first_step(ctx, adapter, folder / "plain")
    expected, total = first_step(ctx, [*adapter, *weighing], folder / "task")
    for name, entry in {**lists.streams(entries, 2), **lists.anchors(entries, 2)}.items():
        weight = 1.0 if entry["weight"] == "auto" else entry["weight"]
        once = {key: value for key, value in entry.items() if key != "drift_budget"} | {"weight": 1.0}
        alone, own = first_step(ctx, [*adapter, once], folder / name)
        # A stream's loss is told without its weight, an anchor's with it.
        expected |= {k: v * (weight if k.startswith("anchor/") else 1.0) for k, v in alone.items() if k != "task"}
        total = {key: total[key] + weight * (own[key] - plain[key]) for key in total}
    assert list(losses) == sorted(expected, key=list(losses).index)
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    assert set(gradients) == set(total)
    size = sum(float(value.square().sum()) for value in total.values()) ** 0.5
    error = sum(float((gradients[name] - total[name]).square().sum()) for name in total) ** 0.5
    assert size > 0
    assert error < 1e-5 * size
