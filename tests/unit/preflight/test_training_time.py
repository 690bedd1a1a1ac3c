"""How long a plan says that training takes: operations as torch counts them, a stated peak, or steps that were made."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.throughput.memory import LLAMA_1B, LLAMA_8B, LLAMA_70B, sizes_of
from benchmarks.throughput.operations import planned
from benchmarks.throughput.tracked import Case, counted
from continual.config.load import load_sequence
from continual.config.schema import Train
from continual.preflight import training_time as room
from continual.preflight.gpus import Gpu, peak
from continual.preflight.operations import step_operations
from continual.preflight.plan import Plan, make_plan
from continual.preflight.render import render
from continual.preflight.resources import Machine
from continual.preflight.sizes import read_sizes
from tests.kits.project import write_project

SMALL: dict[str, Any] = {
    "vocab_size": 2000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2,
}  # fmt: skip
DEEP = {**SMALL, "num_hidden_layers": 24, "vocab_size": 500}
WIDE_HEADS = {**SMALL, "head_dim": 64, "tie_word_embeddings": True}
ROWS: dict[str, Any] = {"row_tokens": 512, "batch_tokens": 16 * 512}
CHUNKS = {**ROWS, "loss_chunk_tokens": 200}
CASES = (
    Case("ddp", SMALL, ROWS),
    Case("ddp, logits in chunks", SMALL, CHUNKS),
    Case("heads wider than the model, tied", WIDE_HEADS, ROWS),
    Case("ddp, layers run again", SMALL, {**ROWS, "activation_checkpointing": True}),
    Case("ddp, live teacher", SMALL, CHUNKS, teacher=True),
    Case("fsdp, logits in chunks", SMALL, {**CHUNKS, "strategy": "fsdp", "workers": 4}),
    Case("fsdp, live teacher, layers run again", SMALL,
         {**CHUNKS, "strategy": "fsdp", "workers": 8, "activation_checkpointing": True}, teacher=True),
    Case("LoRA", DEEP, ROWS, lora=8),
    Case("LoRA, its base as teacher, layers run again", DEEP, {**ROWS, "activation_checkpointing": True},
         teacher=True, lora=8),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operations_are_those_that_torch_counts(case: Case) -> None:
    case = replace(case, rows=2)
    assert planned(case, 2 * case.workers) / case.workers == pytest.approx(counted(case), rel=0.02)


@pytest.mark.parametrize(("model", "billions"), [(LLAMA_1B, 1.24), (LLAMA_8B, 8.03), (LLAMA_70B, 70.6)])
def test_real_sizes_take_six_operations_per_weight_and_token(model: dict[str, Any], billions: float) -> None:
    """Published numbers of parameters, of which an embedding apart from the head multiplies nothing."""
    train = Train.model_validate({"row_tokens": 2, "batch_tokens": 2})
    embedding = 0 if model.get("tie_word_embeddings") else model["vocab_size"] * model["hidden_size"]
    wanted = 6 * (billions * 1e9 - embedding)
    assert step_operations(sizes_of(model), train, 1) / 2 == pytest.approx(wanted, rel=0.01)


def test_of_experts_those_count_that_are_chosen(tmp_path: Path) -> None:
    config = {
        "hidden_size": 4, "num_attention_heads": 2, "vocab_size": 10, "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 3,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = {"model.layers.0.attention.weight": (4, 4), "model.layers.0.norm.weight": (4,), "lm_head.weight": (10, 4)}
    shapes |= {f"model.layers.0.mlp.experts.{number}.up.weight": (3, 4) for number in range(8)}
    shapes |= {"model.layers.0.mlp.shared_expert.up.weight": (3, 4)}
    sizes = read_sizes(tmp_path, shapes)
    assert sizes is not None
    assert (sizes.products, sizes.queries) == (16 + 2 * 12 + 12, 4)


@pytest.mark.parametrize(
    ("name", "bfloat16"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12), ("NVIDIA L40S", 362e12), ("NVIDIA H200", 989e12), ("NVIDIA H200 NVL", 836e12),
        ("NVIDIA GH200 480GB", None), ("Tesla T4", None), ("", None),
    ],
)  # fmt: skip
def test_peaks_are_those_of_the_data_sheets_or_unknown(name: str, bfloat16: float | None) -> None:
    assert peak(name, "bfloat16") == bfloat16


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    return tmp_path


def plan(*overrides: str) -> Plan:
    return make_plan(load_sequence("seq.yaml", list(overrides)))


def gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(room, "read_gpus", lambda: [Gpu(name, 80 << 30) for name in names])
    monkeypatch.setattr(room, "detect_machine", lambda: Machine(8, len(names)))


NLL = "mitigation=[{type: context_free, loss: nll}]"
ON_GPUS = ("train.gpus_per_worker=1", "train.workers=2", "train.precision=bfloat16")


def test_on_a_known_gpu_the_efficiency_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")
    found = plan(*ON_GPUS, NLL)
    assert found.facts["time"] == ("assumed at 40 % of 312 TFLOP/s, the bfloat16 peak of NVIDIA A100-SXM4-80GB"), (
        "the slowest of them"
    )
    width, vocabulary, tokens = 64, 64, 32  # of the project's model of one layer, and of its rows
    weights = 7 * width * width + width * vocabulary
    # Eight rows of the task, and two that `context_free` adds.
    operations = 10 * tokens * (6 * weights + 12 * width * tokens)
    one, two = found.stages
    assert one.step_seconds == pytest.approx(operations / (2 * 0.4 * 312e12))
    assert one.hours == pytest.approx(10 * operations / (2 * 0.4 * 312e12) / 3600)
    assert two.step_seconds == one.step_seconds
    head = next(line for line in render(found).splitlines() if line.strip().startswith("stage"))
    assert "s/step hours mitigation" in " ".join(head.split())


def test_a_teacher_is_counted_where_it_is_live(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, "NVIDIA L4")
    seconds = {}
    for name, kind in {"none": ", loss: nll", "cached": ", teacher: cached", "live": ""}.items():
        seconds[name] = plan(*ON_GPUS, f"mitigation=[{{type: context_free{kind}}}]").stages[0].step_seconds or 0.0
    assert seconds["none"] == seconds["cached"]
    assert seconds["live"] == pytest.approx(seconds["none"] * (30 + 2) / 30), "a third of a pass over 2 of 10 rows"


@pytest.mark.parametrize(
    ("overrides", "names", "why"),
    [
        ((), ("NVIDIA H100 80GB HBM3",), "train on CPUs"),
        (ON_GPUS, ("Tesla T4",), "no peak is known of Tesla T4"),
        (ON_GPUS, (), "the driver does not tell the GPUs"),
    ],
)
def test_what_is_not_known_is_not_invented(
    project: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], names: tuple[str, ...], why: str
) -> None:
    gpus(monkeypatch, *names)
    found = plan(*overrides)
    assert found.facts["time"].startswith("unknown: ")
    assert why in found.facts["time"]
    assert {stage.step_seconds for stage in found.stages} == {None}
    assert "s/step" not in render(found)


def test_a_cluster_is_not_known_before_the_run_connects(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert plan(*ON_GPUS).facts["time"] == "unknown: the GPUs are not known before the run connects"


def test_steps_that_were_made_count_more_than_any_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, "NVIDIA L4")
    metrics = project / "runs" / "tiny" / "stages" / "1-one" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    lines = [json.dumps({"step": step, "seconds": seconds, "pad": "x" * 3000}) for step, seconds in
             enumerate([900.0] * 100 + [2.0, 3.0, 2.0] * 10, 1)]  # fmt: skip
    metrics.write_text("\n".join([*lines, '{"step": 131, "seco']))
    found = plan(*ON_GPUS, NLL, "stages.1.mitigation=[]")
    assert found.facts["time"].startswith("the median of the last steps that this run has made")
    one, two = found.stages
    assert one.step_seconds == 2.0, "the steps long ago, when something else was slow, do not count"
    assert two.step_seconds == pytest.approx(2.0 * 8 / 10), "rows without replay"


@pytest.mark.parametrize(
    "damage", ["[" * 5000, "1" * 6000, '{"step": 1, "seconds": -3}', '{"step": 1, "seconds": "x"}']
)
def test_damaged_records_of_steps_are_left_out(project: Path, damage: str) -> None:
    metrics = project / "runs" / "tiny" / "stages" / "1-one" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(f"{damage}\n")
    assert plan().stages[0].step_seconds is None
    metrics.write_text(f'{damage}\n{{"step": 1, "seconds": 2.5}}\n')
    assert plan().stages[0].step_seconds == 2.5
