"""Losses and drift of texts, against loops over single documents in float64."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from continual.errors import ContinualError
from continual.evaluation.texts import score_text
from tests.kits.sorting import encode, rows_artefact


def naive_nats(model, documents):
    """(nats, tokens) of every document on its own, token by token, in float64."""
    exact = LlamaForCausalLM(model.config).double()
    exact.load_state_dict(model.state_dict())
    found = []
    for ids, masked in documents:
        places = range(max(1, masked), len(ids))
        with torch.no_grad():
            logs = exact(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        found.append((-sum(float(logs[at - 1, ids[at]]) for at in places), len(places)))
    return found


def test_text_loss_equals_a_naive_float64_loop_over_single_documents(model, text, monkeypatch):
    documents, artefact = text
    naive = naive_nats(model, documents)
    nats, tokens = sum(n for n, _ in naive), sum(t for _, t in naive)
    score, records = score_text(model, "text", artefact)
    assert score.score == pytest.approx(-nats / tokens, rel=1e-5)
    assert (score.tokens, score.n, score.unit) == (tokens, 59, "nats/token")
    assert [r["document"] for r in records] == [i for i in range(60) if i != 10]
    for record in records:
        expected, count = naive[record["document"]]
        assert record["tokens"] == count
        assert record["nats_per_token"] == pytest.approx(expected / count, abs=2e-5)
    monkeypatch.setattr("continual.models.forward.LOGIT_BYTES", 1)  # a row at a time
    assert score_text(model, "text", artefact)[0].score == pytest.approx(score.score, rel=1e-6)


def test_text_standard_error_equals_a_bootstrap_over_documents(model, text):
    naive = np.array([pair for pair in naive_nats(model, text[0]) if pair[1]])
    draw = np.random.default_rng(1)
    ratios = [np.divide(*naive[draw.integers(0, len(naive), len(naive))].sum(0)) for _ in range(4000)]
    assert score_text(model, "text", text[1])[0].stderr == pytest.approx(np.std(ratios), rel=0.1)


def naive_drift(model, start, documents):
    """(KL(start || model), tokens) of every document on its own, token by token, in float64."""
    q, p = (LlamaForCausalLM(each.config).double() for each in (model, start))
    q.load_state_dict(model.state_dict())
    p.load_state_dict(start.state_dict())
    found = []
    for ids, masked in documents:
        places = range(max(1, masked), len(ids))
        with torch.no_grad():
            log_q, log_p = (
                each(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1) for each in (q, p)
            )
        divergences = (log_p.exp() * (log_p - log_q)).sum(-1)
        found.append((sum(float(divergences[at - 1]) for at in places), len(places)))
    return found


def test_drift_equals_a_naive_float64_loop_over_single_documents(model, start, text, monkeypatch):
    documents, artefact = text
    other = LlamaForCausalLM.from_pretrained(start).eval()
    naive = naive_drift(model, other, documents)
    score, records = score_text(model, "text", artefact, other)
    expected = sum(kl for kl, _ in naive) / sum(tokens for _, tokens in naive)
    assert 1e-4 < expected < 1
    assert score.drift == pytest.approx(expected, rel=1e-5)
    for record in records:
        kl, count = naive[record["document"]]
        assert record["drift"] == pytest.approx(kl / count, rel=1e-4)
    pairs, draw = np.array([pair for pair in naive if pair[1]]), np.random.default_rng(1)
    ratios = [np.divide(*pairs[draw.integers(0, len(pairs), len(pairs))].sum(0)) for _ in range(4000)]
    assert score.drift_stderr == pytest.approx(np.std(ratios), rel=0.1)
    alone, _ = score_text(model, "text", artefact)
    assert (score.score, score.stderr, alone.drift) == (alone.score, alone.stderr, None)
    assert not torch.is_inference_mode_enabled()
    itself, _ = score_text(model, "text", artefact, model)
    assert (itself.drift, itself.drift_stderr) == (0.0, 0.0)
    monkeypatch.setattr("continual.models.forward.LOGIT_BYTES", 1)  # a row at a time
    assert score_text(model, "text", artefact, other)[0].drift == pytest.approx(expected, rel=1e-5)


def test_text_without_any_loss_is_an_error(model, tmp_path):
    ids = encode("<sort>312|___=0123")
    with pytest.raises(ContinualError, match="the text `empty` has no token to score"):
        score_text(model, "empty", rows_artefact(tmp_path / "a", [(ids, len(ids))], 20))
    one, _ = score_text(model, "one", rows_artefact(tmp_path / "b", [(ids, 0)], 20))
    assert one.stderr is None
    assert one.n == 1
