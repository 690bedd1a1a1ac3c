"""Scoring and averaging through Ray: resume of a missing shard, a failure that is named, models in the store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from baselines.weight_average import WeightAverage
from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.rows import RowReader
from continual.scoring import score_rows
from continual.scoring.columns import nll_columns
from continual.store import Store
from tests.kits import baselines as kit

pytestmark = pytest.mark.slow


def test_only_a_missing_shard_is_scored_again(local_ray: None, tmp_path: Path) -> None:
    ref, store = kit.model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows = kit.stored(store, "rows", kit.packed(0, 200), shard_rows=16)
    seen: list[tuple[int, int]] = []

    def score() -> Any:
        return score_rows(store, ref, rows, "nll", "float32", Generate(), progress=lambda *now: seen.append(now))

    columns = score()
    shards = len(rows.shards())
    assert shards > 3
    assert seen == [(done, shards) for done in range(1, shards + 1)]
    assert [facts["rows"] for facts in columns.shards()] == [facts["rows"] for facts in rows.shards()]
    everything = np.arange(len(RowReader(rows)))
    expected = nll_columns(AutoModelForCausalLM.from_pretrained(ref.path), RowReader(rows).take(everything))["nll"]
    np.testing.assert_allclose(RowReader(columns).take(everything, ("nll",))["nll"], expected, atol=1e-5)

    kept = {index: columns.shard(index).stat().st_mtime_ns for index in range(shards) if index != 2}
    (columns.path / "manifest.json").unlink()
    columns.shard(2).unlink()
    seen.clear()
    assert score().complete
    assert seen == [(shards, shards)]
    assert {index: columns.shard(index).stat().st_mtime_ns for index in kept} == kept
    assert not columns.damage()


def test_a_failed_scoring_says_why_and_can_be_done_again(local_ray: None, tmp_path: Path) -> None:
    ref, store = kit.model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows = kit.stored(store, "rows", kit.packed(0, 20))
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    config.write_text("{")
    with pytest.raises(Exception, match=r"config\.json"):
        score_rows(store, ref, rows, "nll", "float32", Generate())
    config.write_text(text)
    columns = score_rows(store, ref, rows, "nll", "float32", Generate())
    assert columns.complete
    assert columns.failure() is None


def test_an_average_is_made_once_as_a_model_of_the_store(local_ray: None, tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    trained = kit.model_ref(tmp_path / "trained", 7)
    found = WeightAverage(type="weight_average", alpha=1.0, further=(0.5,)).after_training(ctx, trained)
    assert [Path(candidate.model.path).parent.name for candidate in found] == ["models", "models"]
    first, second = (AutoModelForCausalLM.from_pretrained(c.model.path).state_dict() for c in found)
    after = AutoModelForCausalLM.from_pretrained(trained.path).state_dict()
    before = AutoModelForCausalLM.from_pretrained(ctx.stage_start.path).state_dict()
    for name, tensor in after.items():
        assert torch.equal(first[name], tensor), "alpha 1 is the trained model"
        torch.testing.assert_close(second[name], (before[name] + tensor) / 2)
    again = WeightAverage(type="weight_average", alpha=0.5).after_training(ctx, ModelRef("/nowhere", trained.hash))
    assert again[0].model == found[1].model, "what the store has needs no model"
