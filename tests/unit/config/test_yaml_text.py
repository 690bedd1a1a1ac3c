"""What is written as YAML is read as the same value, here and by readers of version 1.1."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from continual.config.yaml_text import parse_yaml, yaml_text

LIKE_NUMBERS = ["1e-5", "2e-05", "1_0", "+5", ".5", "1.", "12:30", "0x1f", "0o7", "no", "Yes", "~", "", "<<", "null"]
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20) | st.sampled_from(LIKE_NUMBERS)
NUMBERS = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    TEXTS | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: object) -> None:
    assert parse_yaml(yaml_text(value)) == value


@pytest.mark.parametrize("text", LIKE_NUMBERS)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    """A sweep's tags hold the learning rate of a trial as text."""
    written = yaml_text({"tags": {"train.learning_rate": text}})
    assert parse_yaml(written)["tags"]["train.learning_rate"] == text
    assert yaml.safe_load(written)["tags"]["train.learning_rate"] == text
