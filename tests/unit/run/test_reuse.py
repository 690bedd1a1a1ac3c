"""Trained stages in the store: the address tells apart what differs, and a second run takes over the whole."""

from pathlib import Path
from typing import Any

import pytest

from continual.evaluation.service import Scorer, evaluators_of
from continual.ledger.lines import read_lines
from continual.ledger.records import Records
from continual.run.reuse import resumed_inputs, stage_inputs, trained_once
from continual.store import Store, digest
from continual.training.job import TrainJob
from continual.training.launch import exported
from tests.kits import baselines as kit

CONTEXT_FREE = {"type": "context_free", "weight": 0.5}
LORA = {"type": "lora", "rank": 4}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


def made(folder: Path, mitigation: list[dict[str, Any]], **train: Any) -> tuple[TrainJob, Scorer, Store]:
    ctx = kit.context(folder, mitigation, **train)
    return kit.job_of(ctx), Scorer(ctx.store, ctx.sequence, {}, evaluators_of(ctx.sequence, 1)), ctx.store


def address(job: TrainJob, scorer: Scorer) -> str:
    return digest(stage_inputs(job, scorer))


def test_what_decides_the_weights_is_in_the_address(tmp_path: Path) -> None:
    lists: list[list[dict[str, Any]]] = [
        [],
        [CONTEXT_FREE],
        [{**CONTEXT_FREE, "weight": 0.6}],
        [{**CONTEXT_FREE, "loss": "nll"}],
        [{**CONTEXT_FREE, "model": "start"}],
        [{"type": "context_free", "weight": "auto", "drift_budget": 0.1, "held_out": 2}],
        [{"type": "context_free", "weight": "auto", "drift_budget": 0.2, "held_out": 2}],
        [{"type": "l2_start"}],
        [{"type": "l2_start", "weight": 0.1}],
        [LORA],
        [{**LORA, "alpha": 8.0}],
        [{"type": "easy_samples"}],
        [{"type": "easy_samples", "normalise": "mean"}],
    ]
    jobs = [made(tmp_path, one)[:2] for one in lists]
    jobs += [made(tmp_path, [], learning_rate=1e-2)[:2], made(tmp_path, [], weight_decay=0.1)[:2]]
    jobs += [made(tmp_path, [], compile=True)[:2]]
    job, scorer = jobs[0]
    jobs += [(TrainJob(**{**vars(job), key: value}), scorer) for key, value in
             [("seed", 5), ("steps", 3), ("evaluate_every", 2), ("attention", "eager")]]  # fmt: skip
    addresses = [address(*one) for one in jobs]
    assert len(set(addresses)) == len(addresses)


def test_the_code_that_trains_is_in_the_address(tmp_path: Path) -> None:
    code = stage_inputs(*made(tmp_path, [])[:2])["code"]
    assert digest([]) not in code
    assert len(code) == len(set(code))


def test_what_decides_nothing_is_not(tmp_path: Path) -> None:
    plain = address(*made(tmp_path, [])[:2])
    # An average is made after the training, and checkpoints change nothing.
    assert address(*made(tmp_path, [{"type": "weight_average", "alpha": 0.3}])[:2]) == plain
    assert address(*made(tmp_path, [], checkpoint_every=7, keep_checkpoints=5)[:2]) == plain
    job, scorer, _ = made(tmp_path, [])
    assert address(TrainJob(**{**vars(job), "folder": tmp_path / "elsewhere"}), scorer) == plain
    # Threads change the order of sums at most: equal up to rounding, like rows at a time.
    assert address(TrainJob(**{**vars(job), "threads": 2}), scorer) == plain
    assert address(*made(tmp_path, [], micro_rows=1)[:2]) == plain


def test_rows_at_a_time_decide_where_dropout_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [made(tmp_path, [], micro_rows=rows)[:2] for rows in (1, 2)]
    assert resumed_inputs(jobs[0][0]) == resumed_inputs(jobs[1][0]) == jobs[0][0].inputs
    monkeypatch.setattr("continual.run.reuse.has_dropout", lambda folder, options: True)
    assert address(*jobs[0]) != address(*jobs[1])
    assert resumed_inputs(jobs[0][0]) != resumed_inputs(jobs[1][0])


def test_a_stage_is_trained_on_with_the_attention_that_began_it(tmp_path: Path) -> None:
    job, scorer, _ = made(tmp_path, [])
    assert stage_inputs(job, scorer)["attention"] == "by_document"
    masked = TrainJob(**{**vars(job), "attention": ""})
    assert "attention" not in stage_inputs(masked, scorer), "transformers' own choice is known as before"
    assert resumed_inputs(masked) == {k: v for k, v in resumed_inputs(job).items() if k != "model.attention"}
    assert "compile" not in stage_inputs(job, scorer)["train"]
    other = TrainJob(**{**vars(job), "attention": "flash_attention_2"})
    assert resumed_inputs(other) == {**resumed_inputs(job), "model.attention": ["flash_attention_2"]}


def trained(job: TrainJob, scorer: Scorer, store: Store) -> tuple[list[str], int]:
    """Train as a run does; whose result was taken over, and how many steps were trained here."""
    taken: list[str] = []
    steps = 0
    with trained_once(store, job, scorer, taken.append):
        if not exported(job):
            records, worker = kit.train(job, 3)
            log = Records(job.folder / "metrics.jsonl", 0)
            for record in records:
                log.append(record)
            steps = len(records)
            worker.export(job.export)
    return taken, steps


def test_a_second_run_takes_over_model_and_records(tmp_path: Path) -> None:
    job, scorer, store = made(tmp_path, [CONTEXT_FREE])
    store.maker = "first"
    assert trained(job, scorer, store) == ([], 3)
    other = TrainJob(**{**vars(job), "folder": tmp_path / "other"})
    assert trained(other, scorer, store) == (["first"], 0)
    assert exported(other)
    assert read_lines(other.folder / "metrics.jsonl") == read_lines(job.folder / "metrics.jsonl")
    for path in job.export.iterdir():
        assert (other.export / path.name).read_bytes() == path.read_bytes()
    assert trained(other, scorer, store) == ([], 0)


def test_a_damaged_one_is_trained_again(tmp_path: Path) -> None:
    job, scorer, store = made(tmp_path, [])
    trained(job, scorer, store)
    weights = store.artefact("stages", stage_inputs(job, scorer)).path / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[:-4] + b"\0\0\0\1")
    other = TrainJob(**{**vars(job), "folder": tmp_path / "other"})
    assert trained(other, scorer, store) == ([], 3)


def test_a_stage_that_failed_leaves_nothing_to_take(tmp_path: Path) -> None:
    job, scorer, store = made(tmp_path, [])
    with pytest.raises(RuntimeError), trained_once(store, job, scorer, lambda maker: None):
        raise RuntimeError("worker died")
    assert not store.artefact("stages", stage_inputs(job, scorer)).complete
    assert trained(job, scorer, store) == ([], 3)


@pytest.mark.parametrize("most", [0, 1 << 30])
@pytest.mark.parametrize("owner", ["the run that trained it", "a run that took it over"])
def test_a_change_in_a_runs_folder_reaches_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, owner: str
) -> None:
    """Bytes rewritten in place: with copies the store's is whole; with hard links the damage is noticed and mended."""
    monkeypatch.setattr("continual.store.files.COPIED_BYTES", most)
    job, scorer, store = made(tmp_path, [])
    trained(job, scorer, store)
    right = (job.export / "model.safetensors").read_bytes()
    second, third, fourth = (
        TrainJob(**{**vars(job), "folder": tmp_path / name}) for name in ("second", "third", "fourth")
    )
    trained(second, scorer, store)
    weights = (job if "trained" in owner else second).export / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\x00" * 8)
    trained(third, scorer, store)
    assert (third.export / "model.safetensors").read_bytes() == right
    assert trained(fourth, scorer, store)[1] == 0, "the store is whole again"
    assert (fourth.export / "model.safetensors").read_bytes() == right
