"""A small model that was trained here, its tokenizer, a model near it, and a text to measure."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.arithmetic.model import build
from benchmarks.arithmetic.tasks import rows
from benchmarks.arithmetic.tokenizer import build as build_tokenizer
from tests.kits.sorting import encode, rows_artefact


@pytest.fixture(scope="package")
def tokenizer():
    built, special = build_tokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=built, **special)


@pytest.fixture(scope="package")
def model():
    """Trained on sorting, but not to the end: some answers are right and some are not."""
    torch.manual_seed(0)
    model = build(hidden=64, heads=2, intermediate=128)
    documents = torch.tensor([encode(row["text"] + "<eos>") for row in rows("sort", count=64 * 120)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in documents.split(64):
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="package")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="package")
def start(model, tokenizer, tmp_path_factory):
    """The folder of a model near the trained one."""
    near = LlamaForCausalLM(model.config)
    torch.manual_seed(1)
    near.load_state_dict({name: w + 0.02 * torch.randn_like(w) for name, w in model.state_dict().items()})
    path = tmp_path_factory.mktemp("start")
    near.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="package")
def text(tmp_path_factory):
    """60 documents of 6 to 33 tokens, some with a masked beginning, one with no loss at all."""
    draw = np.random.default_rng(0)
    documents = []
    for number, row in enumerate(rows("sort", "train", 60, seed=9)):
        ids = encode(row["text"] + "<eos>") if number % 3 else draw.integers(1, 19, draw.integers(6, 34)).tolist()
        documents.append((ids, len(ids) if number == 10 else number % 5))
    return documents, rows_artefact(tmp_path_factory.mktemp("store"), documents, 40)
