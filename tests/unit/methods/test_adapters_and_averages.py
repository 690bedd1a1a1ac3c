"""Methods that change the model itself: a merged adapter is a plain model, an average lies between its ends."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from baselines.lora import Lora
from baselines.weight_average import WeightAverage, average, averaged
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError
from continual.models import model_hash
from continual.run.found import check_finished
from continual.run.stage import made_again
from continual.store import publish_folder
from tests.kits import baselines as kit


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_adapter_is_a_plain_model(tmp_path: Path, tied: bool) -> None:
    ref = kit.model_ref(tmp_path / "model", 0, tied)
    plain = AutoModelForCausalLM.from_pretrained(ref.path)
    model = AutoModelForCausalLM.from_pretrained(ref.path)
    ids = torch.arange(12)[None]
    state = torch.get_rng_state()
    undo = Lora(type="lora", rank=4, alpha=8).adapt(model, 1)
    assert torch.equal(state, torch.get_rng_state()), "the trainer's random numbers are as they were"
    torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=0, atol=0)  # B = 0: nothing has changed
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.normal_(0, 0.2)
    expected = model(ids).logits
    merged = undo(model)
    merged.save_pretrained(tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert set(loaded.state_dict()) == set(plain.state_dict())
    assert type(loaded) is type(plain)
    assert float((expected - plain(ids).logits).abs().max()) > 0.1
    for one in (merged, loaded):
        torch.testing.assert_close(one(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_begins_anew_in_every_stage_and_for_every_seed_and_equally_on_every_rank(tmp_path: Path) -> None:
    ref = kit.model_ref(tmp_path / "model", 0, False)

    def first_values(stage_seed: int, seed: int) -> dict[str, torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(ref.path)
        Lora(type="lora", rank=4, seed=seed).adapt(model, stage_seed)
        return {name: value for name, value in model.state_dict().items() if "lora_A" in name}

    values = {(stage, seed): first_values(stage, seed) for stage in (1, 2, 1001) for seed in (0, 1)}
    again = first_values(1, 0)
    assert len(again) > 4
    assert all(torch.equal(again[name], value) for name, value in values[1, 0].items())
    for name in again:
        for one, other in itertools.combinations(values.values(), 2):
            assert not torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_an_average_lies_between_the_ends_and_keeps_what_belongs_to_the_model(tmp_path: Path, alpha: float) -> None:
    before, after = (kit.model_ref(tmp_path / name, seed, tied=True) for seed, name in enumerate(("a", "b")))
    (Path(after.path) / "tokenizer.json").write_text("{}\n")
    (Path(after.path) / "generation_config.json").write_text('{"temperature": 0.6}\n')
    (Path(after.path) / "manifest.json").write_text("{}\n")
    average(before.path, after.path, alpha, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists(), "it would declare the artefact complete"
    for name in ("tokenizer.json", "generation_config.json", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (Path(after.path) / name).read_bytes()
    a, b, out = (dict(AutoModelForCausalLM.from_pretrained(p).named_parameters()) for p in (
        before.path, after.path, tmp_path / "out"))  # fmt: skip
    for name in a:
        torch.testing.assert_close(out[name], (1 - alpha) * a[name] + alpha * b[name], rtol=0, atol=0)


@pytest.mark.parametrize("fault", ["flipped", "deleted"])
def test_a_damaged_average_is_made_again(tmp_path: Path, fault: str) -> None:
    ctx = kit.context(tmp_path, [])
    ends = kit.model_ref(tmp_path / "before", 0), kit.model_ref(tmp_path / "after", 1)
    made = averaged(ctx, *ends, 0.25)
    weights = Path(made.path) / "model.safetensors"
    content = weights.read_bytes()
    if fault == "flipped":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        weights.unlink()
    assert averaged(ctx, *ends, 0.25) == made
    assert weights.read_bytes() == content
    written = weights.stat().st_mtime_ns
    assert averaged(ctx, *ends, 0.25) == made
    assert weights.stat().st_mtime_ns == written, "what is whole is not made again"


@pytest.mark.parametrize("fault", ["flipped", "deleted", "inputs gone"])
def test_a_damaged_average_of_a_finished_stage_is_made_again(tmp_path: Path, fault: str) -> None:
    ctx = kit.context(tmp_path, [{"type": "weight_average"}])
    trained = Path(kit.model_ref(tmp_path / "new", 1).path)
    publish_folder(trained, tmp_path / "trained", {})
    trained = tmp_path / "trained"
    [candidate] = WeightAverage(type="weight_average").after_training(ctx, ModelRef(str(trained), model_hash(trained)))
    lost = candidate.model
    weights = Path(lost.path) / "model.safetensors"
    content = weights.read_bytes()
    assert check_finished(ctx.store, 2, lost) is None
    if fault == "deleted":
        weights.unlink()
    else:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = partial(made_again, ctx, trained)
    if fault == "inputs gone":
        (trained / "model.safetensors").unlink()
        with pytest.raises(ConfigurationError, match="has changed, and the store lacks it"):
            check_finished(ctx.store, 2, lost, again=again)
        return
    note = check_finished(ctx.store, 2, lost, again=again)
    assert note == f"the model of stage 2 in {lost.path} has changed; it was made again"
    assert weights.read_bytes() == content
    assert check_finished(ctx.store, 2, lost, again=again) is None
