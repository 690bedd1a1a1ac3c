"""The memory that a plan foresees: near torch's own trackers, and refused where a GPU has less."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from baselines.lora import Lora
from benchmarks.throughput.memory import measure, planned, sizes_of
from benchmarks.throughput.tracked import Case, tracked
from continual.config.schema import Sequence, Train
from continual.errors import ConfigurationError
from continual.preflight import check_memory as room
from continual.preflight import memory_zero
from continual.preflight.memory import memory
from continual.preflight.sizes import may_draw, read_shapes, read_sizes
from tests.kits.project import sequence, write_model, write_project
from tests.kits.weights import change_config, saved

SHAPES: dict[str, dict[str, Any]] = {
    "small vocabulary": {"vocab_size": 2000, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
                         "num_attention_heads": 8, "num_key_value_heads": 8},
    "large vocabulary": {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4,
                         "num_attention_heads": 8, "num_key_value_heads": 2},
    "narrow, tied": {"vocab_size": 8000, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6,
                   "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
}  # fmt: skip
ROWS: dict[str, Any] = {"row_tokens": 512, "batch_tokens": 16 * 512}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"train": {}},
    "ddp, bfloat16, layers run again": {"train": {"precision": "bfloat16", "activation_checkpointing": True}},
    "fsdp, live teacher": {"train": {"strategy": "fsdp", "workers": 4}, "teacher": True},
    "fsdp, bfloat16, layers run again": {
        "train": {"strategy": "fsdp", "workers": 8, "precision": "bfloat16", "activation_checkpointing": True}
    },
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_plan_is_within_a_tenth_of_the_trackers(shape: str, strategy: str) -> None:
    options = STRATEGIES[strategy]
    case = Case(shape, SHAPES[shape], ROWS | options["train"], rows=2, teacher=options.get("teacher", False))
    assert planned(case) == pytest.approx(tracked(case).total, rel=0.1)


SMALL_BUCKETS = {"zero_optimization": {"reduce_bucket_size": 2_000_000}}
ZERO: list[tuple[str, int, dict[str, Any] | None]] = [
    *((shape, stage, SMALL_BUCKETS) for shape in SHAPES for stage in (2, 3)),
    ("large vocabulary", 1, None),
    ("large vocabulary", 3, None),
]
"""Shape, stage, and DeepSpeed's options; by its own defaults, buckets for gradients need more than all else."""
FEW_TOKENS = {"row_tokens": 32, "batch_tokens": 8 * 32}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "stage", "options"), ZERO)
def test_the_plan_is_within_a_tenth_of_the_trackers_under_zero(
    shape: str, stage: int, options: dict[str, Any] | None
) -> None:
    assert_near(shape, ROWS | {"zero_stage": stage, "deepspeed": options}, rows=2)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_is_foreseen_where_states_need_more_than_activations(stage: int) -> None:
    """Two passes per step, so that gradients of the second come to those of the first."""
    assert_near("small vocabulary", FEW_TOKENS | {"zero_stage": stage, "deepspeed": SMALL_BUCKETS}, rows=1)


@pytest.mark.slow
def test_zero_3_is_foreseen_where_it_may_gather_little() -> None:
    few = {"stage3_max_live_parameters": 3_000_000, "stage3_prefetch_bucket_size": 1_000_000}
    options = {"zero_optimization": SMALL_BUCKETS["zero_optimization"] | few | {"stage3_max_reuse_distance": 0}}
    assert_near("small vocabulary", ROWS | {"zero_stage": 3, "deepspeed": options}, rows=2)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_logits_in_chunks_in_bfloat16_are_tracked_under_zero(stage: int) -> None:
    options = {"precision": "bfloat16", "activation_checkpointing": True, "loss_chunk_tokens": 256}
    train = ROWS | options | {"zero_stage": stage, "deepspeed": SMALL_BUCKETS}
    assert_near("large vocabulary", train, rows=2)


@pytest.mark.slow
def test_what_the_plan_takes_for_deepspeeds_defaults_are_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for stage in (1, 2, 3):
        theirs = DeepSpeedZeroConfig(stage=stage)
        assert theirs.reduce_bucket_size == memory_zero.BUCKET
        assert theirs.max_live_parameters == memory_zero.LIVE
        assert theirs.prefetch_bucket_size == memory_zero.AHEAD
        assert theirs.contiguous_gradients
        assert stage == 3 or not theirs.overlap_comm


def assert_near(shape: str, train: dict[str, Any], rows: int) -> None:
    """Assert that the plan of four workers under DeepSpeed is within a tenth of the trackers."""
    case = Case(shape, SHAPES[shape], train | {"strategy": "deepspeed", "workers": 4, "gpus_per_worker": 1}, rows=rows)
    assert planned(case) == pytest.approx(1024**3 * measure(case)["tracked"], rel=0.1)


@pytest.mark.parametrize("chunk", [256, 512])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_in_chunks_are_tracked(shape: str, chunk: int) -> None:
    """The gradient of the head that the first chunks have is there with the logits of the next one, and only once."""
    case = Case(shape, SHAPES[shape], ROWS | {"loss_chunk_tokens": chunk}, rows=2)
    assert planned(case) == pytest.approx(tracked(case).total, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_read_from_headers(tmp_path: Path, shape: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = saved(tmp_path / "model", LlamaForCausalLM(LlamaConfig(**SHAPES[shape])))
    assert read_sizes(folder, read_shapes(folder)) == sizes_of(SHAPES[shape])


def test_files_that_tell_no_sizes_are_left_alone(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    shapes = read_shapes(folder)
    assert read_sizes(folder, shapes) is not None
    assert read_sizes(folder, {}) is None
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert read_shapes(folder) == {}


def test_a_kernel_makes_no_mask_and_penalties_keep_what_they_pull_to() -> None:
    sizes, train = sizes_of(SHAPES["large vocabulary"]), Train(row_tokens=4096, batch_tokens=4096)
    with_mask, without = (memory(sizes, train, 1, masked=masked) for masked in (True, False))
    assert with_mask.activations - without.activations == 4 * sizes.layers * 4096**2, "bytes of masks"
    spread = Train(strategy="fsdp", workers=4, batch_tokens=4 * 4096, row_tokens=4096)
    for options, share in ((train, 1), (spread, 4)):
        pulled = memory(sizes, options, 1, penalty_copies=2)
        assert pulled.penalties == 2 * 4 * sizes.parameters / share
        assert pulled.total - memory(sizes, options, 1).total == pytest.approx(pulled.penalties)
    drawn = memory(sizes, train, 1, adapter=1000, penalty_copies=1)
    assert drawn.penalties == 4 * 1000


def test_deepspeed_holds_whole_models_where_it_does_not_spread_them_and_its_buckets() -> None:
    sizes = sizes_of(SHAPES["large vocabulary"])
    rows: dict[str, Any] = {
        "strategy": "deepspeed",
        "workers": 64,
        "gpus_per_worker": 1,
        "row_tokens": 32,
        "batch_tokens": 64 * 32,
    }
    needs = {stage: memory(sizes, Train(**rows, zero_stage=stage), 1, teachers=1, live=True) for stage in (2, 3)}
    assert needs[2].weights >= 4 * sizes.parameters
    assert needs[2].teacher == 4 * sizes.parameters
    assert needs[3].weights < 4 * sizes.parameters / 16
    assert needs[3].teacher < needs[2].teacher, "its layers are spread"
    assert all(need.gradients >= 4 * 500_000_000 for need in needs.values())
    rows["deepspeed"] = {"zero_optimization": {"reduce_bucket_size": 1000, "overlap_comm": True}}
    assert memory(sizes, Train(**rows, zero_stage=3), 1).gradients < 4 * 500_000_000
    rows["deepspeed"]["zero_optimization"] |= {key: {"device": "cpu"} for key in ("offload_optimizer", "offload_param")}
    offloaded = memory(sizes, Train(**rows, zero_stage=3), 1)
    assert offloaded.weights == offloaded.optimizer == 0
    on_cpus = memory(sizes, Train(**rows | {"gpus_per_worker": 0, "deepspeed": None}, zero_stage=2), 1)
    assert on_cpus.weights >= 4 * sizes.parameters
    assert on_cpus.gradients < 4 * 500_000_000, "what nothing fills takes nothing"


def test_a_method_says_what_its_penalties_keep(project: Path) -> None:
    def needs(mitigation: list[dict[str, Any]]) -> Any:
        value = fit().model_dump() | {"mitigation": mitigation}
        return room.needed_memory(Sequence.model_validate(value))

    plain, pulled, both = (needs(found) for found in ([], [{"type": "l2_start"}], [{"type": "ewc"}]))
    assert plain.penalties == 0
    assert 2 * pulled.penalties == both.penalties > 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path)
    change_config(tmp_path / "model", attention_dropout=0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(**train: Any) -> Sequence:
    value = sequence(train={"batch_tokens": 2048, "row_tokens": 32, "gpus_per_worker": 1, **train})
    value["model"] = {"type": "pretrained", "source": str(Path("model").resolve())}
    return Sequence.model_validate(value)


def test_what_does_not_fit_is_refused_with_what_would(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = room.needed_memory(fit())
    assert needs is not None
    monkeypatch.setattr(room, "gpu_bytes", lambda: int(needs.total / 0.85))
    assert room.check_memory(fit()) == []
    monkeypatch.setattr(room, "gpu_bytes", lambda: int(needs.total))
    [note] = room.check_memory(fit())
    assert "may run out; write `train.activation_checkpointing: true`" in note
    monkeypatch.setattr(room, "gpu_bytes", lambda: int(needs.total * 0.7))
    with pytest.raises(
        ConfigurationError, match=r"a worker needs about .* of a GPU's memory, of which it has"
    ) as refused:
        room.check_memory(fit())
    assert refused.value.key == "train"
    assert "activations" in refused.value.problem
    written = dict(line.split(": ") for line in refused.value.fix.split("`") if line.startswith("train."))
    fixed = fit(**{key.removeprefix("train."): value for key, value in written.items()})
    assert room.check_memory(fixed) == []
    monkeypatch.setattr(room, "gpu_bytes", lambda: None)
    assert room.check_memory(fit()) == []
    monkeypatch.setattr(room, "gpu_bytes", lambda: 1)
    assert room.check_memory(fit(gpus_per_worker=0)) == [], "on CPUs there is no GPU to fill"


def test_on_cpus_the_workers_share_the_memory_of_the_machine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpus = {"gpus_per_worker": 0, "workers": 2}
    needs = room.needed_memory(fit(**on_cpus))
    assert needs is not None
    monkeypatch.setattr(room, "host_bytes", lambda: int(2 * needs.total / 0.85))
    assert room.check_memory(fit(**on_cpus)) == []
    monkeypatch.setattr(room, "host_bytes", lambda: int(2 * needs.total))
    [note] = room.check_memory(fit(**on_cpus))
    assert "may run out; write `train.activation_checkpointing: true`" in note
    monkeypatch.setattr(room, "host_bytes", lambda: int(2 * needs.total * 0.7))
    with pytest.raises(ConfigurationError, match=r"a worker needs .* of the machine's memory, and each of 2 gets"):
        room.check_memory(fit(**on_cpus))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert room.check_memory(fit(**on_cpus)) == [], "the machines of a cluster are not known"


def test_a_container_has_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, whole = tmp_path / "memory.max", psutil.virtual_memory().total
    monkeypatch.setattr(room, "CONTAINERS", (limit, tmp_path / "absent"))
    for text, expected in (("max\n", whole), ("1048576\n", 1048576), (f"{2 * whole}\n", whole)):
        limit.write_text(text)
        assert room.host_bytes() == pytest.approx(expected, rel=1e-3)


def test_a_part_of_a_gpu_is_a_part_of_its_memory_and_what_cannot_fit_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = room.needed_memory(fit())
    assert needs is not None
    monkeypatch.setattr(room, "gpu_bytes", lambda: int(needs.total / 0.85))
    assert room.check_memory(fit()) == []
    with pytest.raises(ConfigurationError, match="a worker needs"):
        room.check_memory(fit(gpus_per_worker=0.5))
    monkeypatch.setattr(room, "gpu_bytes", lambda: 1000)
    with pytest.raises(ConfigurationError, match="take more workers with"):
        room.check_memory(fit())


def test_matrices_of_any_name_count_for_an_adapter() -> None:
    shapes = {"model.layers.0.mixer.A_log": (4, 2), "model.layers.0.up.weight": (3, 5), "embed.weight": (50, 4)}
    assert Lora(type="lora", rank=2).trained_parameters(shapes) == 2 * (6 + 8)
    assert Lora(type="lora", rank=2, targets=["up"]).trained_parameters(shapes) == 2 * 8


@pytest.mark.parametrize(
    ("key", "value", "draws"), [("attention_dropout", 0.0, False), ("attention_dropout", 0.1, True), ("other", 1, True)]
)
def test_dropout_is_expected_where_no_key_forbids_it(tmp_path: Path, key: str, value: float, draws: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    assert may_draw(tmp_path, {}) is draws


def test_a_teacher_counts_once_and_not_beside_an_adapter_of_it(project: Path) -> None:
    kl = {"type": "context_free", "loss": "kl"}

    def teacher(*mitigation: dict[str, Any]) -> float:
        needs = room.needed_memory(fit().model_copy(update={"mitigation": Sequence.model_validate(
            sequence(mitigation=list(mitigation))).mitigation}))  # fmt: skip
        assert needs is not None
        return needs.teacher

    one = teacher(kl)
    assert one > 0
    assert teacher(kl, {**kl, "name": "again"}) == one
    assert teacher(kl, {**kl, "name": "other", "model": "start"}) == 2 * one
    assert teacher({**kl, "teacher": "cached"}) == 0
    assert teacher({**kl, "loss": "nll"}) == 0
    assert teacher(kl, {"type": "lora"}) == 0


def test_an_adapter_has_little_to_remember() -> None:
    sizes, train = sizes_of(SHAPES["large vocabulary"]), Train.model_validate({"batch_tokens": 256, "row_tokens": 32})
    whole, adapted = memory(sizes, train, 1), memory(sizes, train, 1, adapter=1000)
    assert adapted.optimizer == 8000
    assert adapted.total < whole.total / 2
