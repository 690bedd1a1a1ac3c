"""The user's DeepSpeed JSON: what is read, merged and refused."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.training.strategies.deepspeed_json import conflicts, merged, read_json


@pytest.mark.parametrize(
    ("zero", "key"),
    [
        ({"zenflow": {"topk_ratio": 0.1}}, "zenflow"),
        ({"round_robin_gradients": True}, "round_robin_gradients"),
        ({"offload_optimizer": {"device": "nvme"}}, "offload_optimizer.device"),
        ({"offload_optimizer": {"device": "cpu", "ratio": 0.5}}, "offload_optimizer.ratio"),
        ({"offload_param": {"device": "nvme"}}, "offload_param.device"),
    ],
)
def test_what_a_checkpoint_would_not_hold_is_refused(zero: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"train\.deepspeed: .* zero_optimization\.{re.escape(key)} keeps"):
        read_json({"zero_optimization": zero})


def test_what_a_checkpoint_holds_is_not_refused() -> None:
    offloaded = {"offload_optimizer": {"device": "cpu", "ratio": 1.0}, "round_robin_gradients": False}
    assert read_json({"zero_optimization": offloaded}) == {"zero_optimization": offloaded}


def test_conflicting_deepspeed_keys_are_refused() -> None:
    assert conflicts({"zero_optimization": {"overlap_comm": True}, "communication_data_type": "fp32"}) == []
    assert conflicts({"bf16": {"enabled": "auto"}, "train_batch_size": "auto"}) == []
    assert conflicts({"zero_optimization": {"stage": 3}, "fp16": {"enabled": False}, "optimizer": {}}) == [
        "optimizer",
        "fp16",
        "zero_optimization.stage",
    ]
    with pytest.raises(ConfigurationError, match=r"train\.deepspeed: other keys of `train` set gradient_clipping"):
        read_json({"gradient_clipping": 1.0})


def test_deepspeed_json_is_read_and_merged(tmp_path: Path) -> None:
    path = tmp_path / "zero.json"
    path.write_text(
        json.dumps({"train_batch_size": "auto", "zero_optimization": {"stage": "auto", "overlap_comm": True}})
    )
    user = read_json(str(path))
    assert user == {"zero_optimization": {"overlap_comm": True}}
    assert merged({"zero_optimization": {"stage": 2}}, user) == {
        "zero_optimization": {"stage": 2, "overlap_comm": True}
    }
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"train\.deepspeed"):
            read_json(str(path))


def test_deepspeed_json_is_checked_without_torch() -> None:
    code = (
        "import sys, continual.training.strategies.deepspeed_json; assert not {'torch', 'deepspeed'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
