"""Whether a model draws in training: by the settings of its own, those of nested parts, and those of its class."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.models.dropout import has_dropout

LLAMA = {"model_type": "llama", "attention_dropout": 0.0}


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        (LLAMA, [], False),
        ({**LLAMA, "attention_dropout": 0.1}, [], True),
        (LLAMA, [{"type": "lora", "lora_dropout": 0.05}], True),
        (LLAMA, [{"type": "lora", "dropout": 0.0}], False),
        ({"model_type": "gpt2"}, [], True),
        (
            {"model_type": "gpt2", "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "summary_first_dropout": 0},
            [],
            False,
        ),
        ({"model_type": "gpt2", "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0.2}, [], True),
        ({"model_type": "mixtral", "router_jitter_noise": 0.1}, [], True),
        ({"model_type": "mixtral"}, [], False),
        ({"model_type": "phimoe", "router_jitter_noise": 0.0, "input_jitter_noise": 0.01}, [], True),
        ({"model_type": "phimoe", "router_jitter_noise": 0.0, "input_jitter_noise": 0.0}, [], False),
        ({"model_type": "switch_transformers", "dropout_rate": 0.0, "router_jitter_noise": 0.01}, [], True),
        ({"model_type": "dbrx", "ffn_config": {"moe_jitter_eps": 0.01}}, [], True),
        ({"model_type": "opt", "dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.1}, [], True),
    ],
)
def test_whatever_is_drawn_in_training_is_found(
    tmp_path: Path, config: dict[str, Any], options: Any, expected: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert has_dropout(str(tmp_path), options) is expected
