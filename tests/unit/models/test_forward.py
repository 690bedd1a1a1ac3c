"""Packed forward passes: log-probabilities as if every document stood alone, and the models that would break it."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from continual.errors import ContinualError
from continual.models.forward import check_head, hidden_states, log_probabilities, logits_of, token_losses
from tests.kits.baselines import packed
from tests.kits.families import with_vision
from tests.kits.models import SIZES, tiny


def cohere() -> CohereForCausalLM:
    """A head that scales its logits."""
    torch.manual_seed(0)
    return CohereForCausalLM(CohereConfig(**SIZES)).eval()


def gemma2() -> Gemma2ForCausalLM:
    """A head that caps its logits."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0)).eval()


@pytest.mark.parametrize("make", [tiny, cohere, gemma2, with_vision])
def test_losses_are_those_of_every_document_alone_whatever_the_head_does(make: Any) -> None:
    model, rows = make(), packed(0, 20)
    losses = token_losses(model, rows)
    for document in range(20):
        place = rows["documents"] == document
        ids = torch.from_numpy(rows["ids"][place].astype(np.int64))
        with torch.no_grad():
            log_p = torch.log_softmax(model(ids[None], use_cache=False).logits[0, :-1].double(), -1)
        expected = -log_p.gather(-1, ids[1:, None])[:, 0]
        np.testing.assert_allclose(losses[place][1:], expected.numpy(), atol=1e-5)


def test_every_predicted_token_has_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.models.forward.BLOCK_TOKENS", 2 * packed(0, 20)["ids"].shape[1])
    monkeypatch.setattr("continual.models.forward.CHUNK_TOKENS", 3)
    rows = packed(0, 20)
    times = np.zeros(rows["ids"].shape, int)
    for places, log_p in log_probabilities(tiny(), rows):
        times[places] += 1
        assert log_p.shape == (len(places[0]), SIZES["vocab_size"])
        assert len(log_p) <= 3
    np.testing.assert_array_equal(times, (rows["documents"] >= 0) & (rows["positions"] > 0))


@pytest.mark.parametrize("make", [tiny, gemma2])
def test_body_and_head_give_the_logits_of_the_model(make: Any) -> None:
    model, ids = make(), torch.arange(12).view(2, 6)
    positions = torch.arange(6).expand(2, 6)
    with torch.no_grad():
        logits = logits_of(model, hidden_states(model, ids, positions))
        torch.testing.assert_close(logits, model(ids, use_cache=False).logits.flatten(0, 1))


def test_check_head_accepts_and_leaves_the_mode_alone() -> None:
    model = tiny().train()
    check_head(model)
    assert model.training
    check_head(tiny().bfloat16())


def test_check_head_refuses_what_the_module_would_get_wrong() -> None:
    with pytest.raises(ContinualError, match="head of CohereForCausalLM"):
        check_head(cohere())  # logits are scaled
    torch.manual_seed(0)
    opt = OPTConfig(vocab_size=50, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, init_std=0.2)
    with pytest.raises(ContinualError, match="OPTForCausalLM lets documents"):
        check_head(OPTForCausalLM(opt))  # its mask does not look at the position ids
    with pytest.raises(ContinualError, match="MptForCausalLM takes no position ids"):
        check_head(MptForCausalLM(MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=50)))
