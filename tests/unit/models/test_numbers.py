"""Values that no model has are refused in a moment, before anything is laid out by them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.models.architecture import read_config
from tests.kits.project import write_model

WRONG: list[dict[str, Any]] = [
    {"num_hidden_layers": 9999},
    {"text_config": {"num_hidden_layers": 9999}},
    {"hidden_size": 10**9},
    {"num_labels": 2_000_000},
    {"attention_dropout": 2.0},
    {"resid_pdrop": -0.5},
    {"bos_token_id": 10**30},
    {"bos_token_id": 64},
    {"rope_theta": float("nan")},
    {"hidden_size": "64"},
    {"vocab_size": True},
    {"num_attention_heads": 0},
    {"architectures": 6.05},
    {"architectures": [{}]},
    {"auto_map": ["x"]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_number_that_no_model_has_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "model")
    file = folder / "config.json"
    read_config(str(folder))
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    begun = time.process_time()
    with pytest.raises(ConfigurationError, match=r"config\.json: `") as raised:
        read_config(str(folder))
    assert time.process_time() - begun < 1
    assert len(str(raised.value)) < 300


RIGHT: list[dict[str, Any]] = [
    {"attention_dropout": 0.1},
    {"time_limits": [0.0, float("inf")]},
    {"eos_token_id": -1},
]


@pytest.mark.parametrize("right", RIGHT, ids=str)
def test_what_models_have_is_read(tmp_path: Path, right: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | right))
    read_config(str(folder))
