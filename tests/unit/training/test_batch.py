"""Arrays become tensors by what the stream's loss names."""

from typing import Any

import numpy as np
import pytest
import torch

from continual.contract.stream import Stream
from continual.store import Artefact
from continual.training.batch import to_batch
from continual.training.losses.kinds import Nll, TopK

ROWS = Artefact("rows", "0", "/nowhere")
ARRAYS = {
    "step": np.array([3]),
    "task/ids": np.arange(6, dtype=np.int32).reshape(1, 2, 3),
    "task/positions": np.zeros((1, 2, 3), np.int32),
    "task/weights": np.ones((1, 2, 3), np.float32),
    "task/top_ids": np.arange(12, dtype=np.int32).reshape(1, 2, 6),
    "task/top_logprobs": np.linspace(-1, 0, 12, dtype=np.float64).reshape(1, 2, 6),
    "task/row": np.array([[7, 8]]),
}


def batch(loss: Any) -> dict[str, torch.Tensor]:
    return to_batch([Stream("task", ROWS, loss)], ARRAYS)["task"]


def test_a_loss_gets_the_inputs_and_the_columns_that_it_names() -> None:
    assert list(batch(Nll())) == ["ids", "positions", "weights"]
    assert list(batch(TopK())) == ["ids", "positions", "weights", "top_ids", "top_logprobs"]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [("ids", torch.int64), ("weights", torch.float32), ("top_ids", torch.int64), ("top_logprobs", torch.float32)],
)
def test_integers_are_int64_and_others_float32(column: str, dtype: torch.dtype) -> None:
    assert batch(TopK())[column].dtype == dtype


def test_columns_have_k_values_per_token() -> None:
    top = batch(TopK())["top_ids"]
    assert top.shape == (2, 3, 2)
    assert top[1, 2].tolist() == [10, 11]
