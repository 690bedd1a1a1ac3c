"""Attention document by document: the documents' places, windows, groups of heads, rows that are filled up."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from continual.models.attention import BY_DOCUMENT, Workers, resolve, use_attention
from continual.models.by_document import LEAST_FILLED, attend, documents_of
from continual.models.forward import hidden_states
from tests.kits.families import TRAINED, family
from tests.kits.models import SIZES

ROWS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=4)


def packed(rows: list[list[int]]) -> Tensor:
    """Position ids of rows whose documents have these lengths; the rest of a row is padding."""
    width = max(map(sum, rows))
    filled = [[place for length in row for place in range(length)] for row in rows]
    return torch.tensor([row + [0] * (width - len(row)) for row in filled])


def by_hand(query: Tensor, key: Tensor, value: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """In float64, token by token: softmax of the scores of those before it in its document, within the window."""
    rows, heads, width, size = query.shape
    found = torch.zeros(rows, width, heads, value.shape[-1], dtype=torch.float64)
    shared = heads // key.shape[1]
    for row in range(rows):
        for token in range(width):
            back = int(positions[row, token])
            first = token - (back if window is None else min(back, window - 1))
            for head in range(heads):
                keys, values = (each[row, head // shared, first : token + 1].double() for each in (key, value))
                scores = keys @ query[row, head, token].double() / size**0.5
                found[row, token, head] = scores.softmax(0) @ values
    return found


@given(ROWS)
def test_every_token_has_one_place_in_a_batch_of_like_lengths(rows: list[list[int]]) -> None:
    positions = packed(rows)
    found = documents_of(positions)
    tokens = torch.cat([batch.tokens for batch in found.batches])
    assert torch.equal(tokens[found.place], torch.arange(positions.numel()))
    lengths = []
    for batch in found.batches:
        of_batch = positions.flatten()[batch.tokens].view(batch.count, batch.length).amax(1) + 1
        assert int(of_batch.max()) == batch.length
        assert int(of_batch.min()) >= LEAST_FILLED * batch.length
        lengths += of_batch.tolist()
    padding = sum(positions.shape[1] - sum(row) for row in rows)
    assert sorted(lengths) == sorted([*(length for row in rows for length in row), *[1] * padding])


@pytest.mark.parametrize("window", [None, 1, 3, 9])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_means_are_those_of_each_document_alone(groups: int, window: int | None) -> None:
    positions = packed([[7, 1, 5], [9, 2, 2], [13]])
    torch.manual_seed(groups)
    query = torch.randn(3, 4, 13, 8)
    key, value = torch.randn(3, 4 // groups, 13, 8), torch.randn(3, 4 // groups, 13, 6)
    found, scores = attend(None, query, key, value, None, documents=documents_of(positions), sliding_window=window)
    assert scores is None
    torch.testing.assert_close(found.double(), by_hand(query, key, value, positions, window), rtol=0, atol=1e-5)


def test_rows_without_documents_are_one_each() -> None:
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    found, _ = attend(None, query, key, value, None)
    expected = by_hand(query, key, value, torch.arange(6).expand(2, 6), None)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["Llama", "Gemma3Text"])
def test_rows_that_are_filled_up_and_caches_are_what_they_are_under_sdpa(name: str) -> None:
    model: Any = family(name, **TRAINED.get(name, SIZES))
    ids = torch.arange(12).view(2, 6) + 1
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    found = []
    for attention in ("sdpa", BY_DOCUMENT):
        use_attention(model, attention)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
            first = model(input_ids=ids[1:, :3], use_cache=True)
            rest = model(input_ids=ids[1:, 3:5], past_key_values=first.past_key_values, use_cache=True).logits
            last = model(input_ids=ids[1:, 5:], past_key_values=first.past_key_values, use_cache=True).logits
        found.append(torch.cat([logits, rest[0], last[0]]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)


def test_documents_are_those_of_the_position_ids_where_nobody_names_them() -> None:
    """As where a method runs the model that is trained."""
    model: Any = family("Llama", **SIZES)
    positions = packed([[9, 20], [17, 12]])
    ids = torch.arange(positions.numel()).remainder(40).view(2, -1)
    with torch.no_grad():
        expected = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        use_attention(model, BY_DOCUMENT)
        found = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_a_family_that_takes_documents_computes_what_it_does_under_sdpa(name: str) -> None:
    model: Any = family(name, **TRAINED[name])
    if resolve("auto", Workers(gpu=False, precision="float32"), type(model), model.config).name != BY_DOCUMENT:
        pytest.skip("it is run with a mask")
    positions = packed([[9, 20], [17, 12]])
    ids = (torch.arange(positions.numel()) * 7 + 1).remainder(model.config.get_text_config().vocab_size).view(2, -1)
    with torch.no_grad():
        expected = hidden_states(model, ids, positions)
        use_attention(model, BY_DOCUMENT)
        found = hidden_states(model, ids, positions)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max().clamp(min=1)))
