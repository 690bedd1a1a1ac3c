"""Strategies on two gloo processes without Ray: equal to one process, to each other, to themselves after a resume."""

import multiprocessing
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from continual.config.schema import Train
from continual.errors import ContinualError
from continual.training.losses.kinds import Kl, Nll
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty
from continual.training.spread import empty_tensors
from continual.training.strategies import build_strategy, spreads_weights
from continual.training.strategies.base import Strategy, not_finite
from tests.golden import losses_of, read_losses

STEPS, ROWS, TOKENS, VOCABULARY, CHUNK = 20, 4, 24, 50, 8
HALF, TIED_STEPS = STEPS // 2, 5
CPU = torch.device("cpu")
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    # Small parameters would stay whole on every rank.
    "zero3": {
        "strategy": "deepspeed",
        "zero_stage": 3,
        "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
    },
}


def train_of(strategy: str | dict[str, Any], clip: float | None = 0.5) -> Train:
    keys = {"learning_rate": 3e-3, "weight_decay": 0.1, "max_grad_norm": clip, "loss_chunk_tokens": CHUNK}
    return Train.model_validate({**keys, **(STRATEGIES[strategy] if isinstance(strategy, str) else strategy)})


def tiny_model(seed: int, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


def rows_of(step: int, loss: str) -> list[dict[str, Any]]:
    """A step's rows: two packed documents each, and very unequal numbers of trained tokens, none in some rows."""
    random = torch.Generator().manual_seed(2 * step + (loss == "kl"))
    rows = []
    for number in range(ROWS):
        weights = torch.rand(1, TOKENS, generator=random)
        weights[:, int(TOKENS * number / (ROWS - 1)) :] = 0.0
        if step % 5 == 4 and number < ROWS // 2:
            weights[:] = 0.0  # nothing to learn on the whole first rank
        border = int(torch.randint(2, TOKENS - 2, (), generator=random))
        positions = torch.cat([torch.arange(border), torch.arange(TOKENS - border)])[None]
        ids = torch.randint(VOCABULARY, (1, TOKENS), generator=random)
        rows.append({"ids": ids, "positions": positions, "weights": weights, "loss": Kl() if loss == "kl" else Nll()})
    return rows


def train_steps(
    strategy: Any, steps: range, rank: int, world: int, penalties: Sequence[LoadedPenalty] = ()
) -> list[list[float]]:
    """Per step: global mean nll and KL against a teacher, gradient norm, the KL measured after it, the penalties."""
    teacher = tiny_model(seed=1).eval()
    share = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    record = []
    for step in steps:
        parts = {loss: rows_of(step, loss) for loss in ("nll", "kl")}
        counts = {loss: sum(float((r["weights"][:, 1:] > 0).sum()) for r in rows) for loss, rows in parts.items()}
        micro = [row for rows in parts.values() for row in rows[share]]
        sums = {"nll": torch.zeros((), dtype=torch.float64), "kl": torch.zeros((), dtype=torch.float64)}
        for number, row in enumerate(micro):
            last = number == len(micro) - 1
            with strategy.micro(last):
                loss = strategy(**row, teacher=teacher if row["loss"].teacher else None)
                strategy.backward(loss * (world / counts[row["loss"].name]), last)
            sums[row["loss"].name] += loss.detach().double() / counts[row["loss"].name]
        added = strategy.add_penalties(penalties) if penalties else {}
        norms: list[float] = []
        assert not strategy.step(3e-3 / (1 + step), partial(kept_norm, norms))
        sums["measured"] = torch.zeros((), dtype=torch.float64)
        strategy.eval()
        with torch.no_grad():
            for row in parts["kl"][share] if step % 5 == 0 else []:
                sums["measured"] += strategy(**row, teacher=teacher).double() / counts["kl"]
        strategy.train()
        if world > 1:
            for value in sums.values():
                dist.all_reduce(value)
        values = [sums["nll"], sums["kl"], *norms, sums["measured"], *added.values()]
        record.append([float(value) for value in values])
    return record


def kept_norm(norms: list[float], norm: torch.Tensor) -> torch.Tensor:
    norms.append(float(norm))
    return not_finite(norm)


def build(
    strategy: str | dict[str, Any], rank: int, world: int, tied: bool = False, clip: float | None = 0.5, seed: int = 0
) -> Any:
    train, model = train_of(strategy, clip), tiny_model(seed, tied)
    if rank and spreads_weights(train):
        empty_tensors(model, "meta")
    module = LossModule(model.train(), CHUNK, None)
    return build_strategy(train, module, CPU, world, 2 * ROWS // world)


def whole(strategy: Strategy) -> dict[str, torch.Tensor]:
    """Return a copy of the model's tensors."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in strategy.whole_tensors()}


def scenarios(rank: int, world: int, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in STRATEGIES:
        strategy = build(name, rank, world)
        record = train_steps(strategy, range(HALF), rank, world)
        saved = folder / name
        if rank == 0:
            saved.mkdir()
        dist.barrier()
        written = strategy.save(saved)
        record += train_steps(strategy, range(HALF, STEPS), rank, world)  # while it is written
        written()
        dist.barrier()
        results[name] = {"record": record, "state": whole(strategy)}
        dist.barrier()

        resumed = build(name, rank, world, seed=7)  # other weights: all must come from the folder
        resumed.load(saved)
        record = train_steps(resumed, range(HALF, STEPS), rank, world)
        results[name] |= {"resumed": record, "resumed_state": whole(resumed)}

        tied = build(name, rank, world, tied=True, clip=None)
        results[name] |= {"tied": train_steps(tied, range(TIED_STEPS), rank, world), "tied_state": whole(tied)}
    return results


def in_process(rank: int, world: int, folder: Path, function: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.save(function(rank, world, folder), folder / f"results-{rank}.pt")
    # What `function` built is gone by now: DDP's reducer, freed after its process group, deadlocks with gloo's thread.
    dist.barrier()
    dist.destroy_process_group()


def start(function: Any, ranks: int, folder: Path) -> None:
    """Run `function(rank, ranks, folder)` in so many processes, forked from one that has imported this file already."""
    multiprocessing.set_forkserver_preload([__name__])
    mp.start_processes(in_process, (ranks, folder, function), nprocs=ranks, start_method="forkserver")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left what they did; they share one start, which costs more than all the steps."""
    folder = tmp_path_factory.mktemp("strategies")
    start(scenarios, 2, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "results-0.pt")


def one_process(tied: bool, clip: float | None, steps: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    strategy = build("ddp", 0, 1, tied, clip)
    return torch.tensor(train_steps(strategy, range(steps), 0, 1)), whole(strategy)


def largest(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_with_unequal_tokens_equal_one_rank(results: dict[str, Any], name: str) -> None:
    expected, state = one_process(tied=False, clip=0.5, steps=STEPS)
    record = torch.tensor(results[name]["record"])
    assert float(expected[:, 2].min()) > 0.5, "every step should clip"
    torch.testing.assert_close(record, expected, rtol=1e-6, atol=1e-6)
    assert largest(results[name]["state"], state) < 1e-6


@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_are_the_golden_ones(results: dict[str, Any], name: str) -> None:
    """A change that means to change them renews the file with `python -m tests.golden`."""
    golden, losses = read_losses()[name], losses_of(results[name]["record"])
    for loss in ("nll", "kl"):
        assert losses[loss] == pytest.approx(golden[loss], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "ddp"])
def test_zero_equals_ddp(results: dict[str, Any], name: str) -> None:
    record, expected = (torch.tensor(results[key]["record"]) for key in (name, "ddp"))
    torch.testing.assert_close(record, expected, rtol=1e-6, atol=1e-6)
    assert largest(results[name]["state"], results["ddp"]["state"]) < 1e-6


@pytest.mark.parametrize("name", STRATEGIES)
def test_tied_embeddings_without_clipping(results: dict[str, Any], name: str) -> None:
    expected, state = one_process(tied=True, clip=None, steps=TIED_STEPS)
    torch.testing.assert_close(torch.tensor(results[name]["tied"]), expected, rtol=1e-6, atol=1e-6)
    # AdamW makes 1e-6 of the last bits of small gradients, which are scaled later where the head is not spread.
    assert largest(results[name]["tied_state"], state) < 2e-6


@pytest.mark.parametrize("name", STRATEGIES)
def test_resumed_run_equals_undisturbed_bit_for_bit(results: dict[str, Any], name: str) -> None:
    assert results[name]["resumed"] == results[name]["record"][HALF:]
    assert largest(results[name]["resumed_state"], results[name]["state"]) == 0.0


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_checkpoint_holds_safetensors_alone_a_part_from_every_rank(name: str, results: Any, folder: Path) -> None:
    files = [path for path in (folder / name).rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {path.suffix for path in files} == {".safetensors"}
    sizes = [path.stat().st_size for path in files]
    assert min(sizes) > max(sizes) / 3


@pytest.mark.parametrize("name", STRATEGIES)
def test_whole_tensors_are_a_model(results: dict[str, Any], name: str, tmp_path: Path) -> None:
    state = results[name]["tied_state"]
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    model = tiny_model(seed=3, tied=True)
    model.load_state_dict(state)
    model.save_pretrained(tmp_path, state_dict=state)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = rows_of(0, "nll")[0]["ids"]
    assert torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)


def resumed_difference(strategy: Any, fresh: Any, rank: int, world: int, folder: Path) -> float:
    """Return by how much, at most, steps after a resume differ from those that the saved strategy goes on to make."""
    if rank == 0:
        folder.mkdir()
    dist.barrier()
    train_steps(strategy, range(2), rank, world)
    written = strategy.save(folder)
    going_on = train_steps(strategy, range(2, 4), rank, world)
    written()
    dist.barrier()
    fresh.load(folder)
    resumed = train_steps(fresh, range(2, 4), rank, world)
    return float((torch.tensor(resumed) - torch.tensor(going_on)).abs().max())


def resume_on_four(rank: int, world: int, folder: Path) -> dict[str, float]:
    return {
        name: resumed_difference(build(name, rank, world), build(name, rank, world, seed=7), rank, world, folder / name)
        for name in STRATEGIES
    }


def test_a_resume_is_exact_where_the_order_of_sums_matters(tmp_path: Path) -> None:
    """With three ranks or more DDP's buckets decide the order of sums, and it sorts them anew after one pass."""
    start(resume_on_four, 4, tmp_path)
    assert torch.load(tmp_path / "results-0.pt") == dict.fromkeys(STRATEGIES, 0.0)


LAYOUTS: dict[str, dict[str, Any]] = {
    "offloaded": {"zero_stage": 2, "deepspeed": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}},
    "aligned": {"zero_stage": 1, "deepspeed": {"zero_optimization": {"parameter_alignment": True}}},
    "small ones whole": {"zero_stage": 3},
    "groups": {"zero_stage": 3, "deepspeed": {"zero_optimization": {"sub_group_size": 2000}}},
    "offloaded groups": {
        "zero_stage": 3,
        "deepspeed": {
            "zero_optimization": {
                "sub_group_size": 2000,
                "offload_optimizer": {"device": "cpu"},
                "offload_param": {"device": "cpu"},
            }
        },
    },
}
"""What a user's JSON may ask for decides where DeepSpeed keeps what a checkpoint holds."""


def resume_layouts(rank: int, world: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, keys in LAYOUTS.items():
        saved, fresh = (build(keys | {"strategy": "deepspeed"}, rank, world, seed=seed) for seed in (0, 7))
        found[name] = resumed_difference(saved, fresh, rank, world, folder / name)
    for name in LAYOUTS:
        strategy = build("ddp", rank, world, seed=7)
        strategy.load(folder / name)
        found[f"ddp from {name}"] = train_steps(strategy, range(2, 4), rank, world)
    strategy.optimizer.state[next(strategy.module.parameters())]["step"] += 1
    strategy.save(folder)()
    dist.barrier()
    with pytest.raises(ContinualError, match=r"were updated \[4, 5\] times, and ZeRO updates all alike"):
        build("zero2", rank, world).load(folder)
    return found


@pytest.mark.slow
def test_a_resume_is_exact_however_deepspeed_keeps_what_it_has(tmp_path: Path) -> None:
    start(resume_layouts, 2, tmp_path)
    found = torch.load(tmp_path / "results-0.pt")
    assert {name: found[name] for name in LAYOUTS} == dict.fromkeys(LAYOUTS, 0.0)
    strategy = build("ddp", 0, 1)
    expected = torch.tensor(train_steps(strategy, range(4), 0, 1)[2:])
    for name in LAYOUTS:
        after = torch.tensor(found[f"ddp from {name}"])
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-6, msg=name)


ELSEWHERE = (
    *((name, name) for name in STRATEGIES),
    ("ddp", "fsdp"), ("fsdp", "ddp"), ("ddp", "zero2"), ("fsdp", "zero3"), ("zero1", "zero3"), ("zero3", "ddp"),
)  # fmt: skip
"""What goes on, and what two ranks have saved: each strategy reads what the others have saved, too."""


def resume_elsewhere(rank: int, world: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, saved in ELSEWHERE:
        strategy = build(name, rank, world, seed=7)
        strategy.load(folder / "saved" / saved)
        found[f"{name} from {saved}"] = train_steps(strategy, range(HALF, STEPS), rank, world)
    return found


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_what_two_ranks_saved_goes_on_with_others(
    results: dict[str, Any], folder: Path, tmp_path: Path, ranks: int
) -> None:
    shutil.copytree(folder, tmp_path / "saved")
    start(resume_elsewhere, ranks, tmp_path)
    expected = torch.tensor(results["ddp"]["record"][HALF:])
    for name, record in torch.load(tmp_path / "results-0.pt").items():
        torch.testing.assert_close(torch.tensor(record), expected, rtol=1e-6, atol=1e-6, msg=name)
