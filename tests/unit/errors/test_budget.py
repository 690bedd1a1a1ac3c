"""Reading before a run ends at a limit, reading in a run does not."""

import pytest

from continual.errors.budget import DOCUMENT, Enough, is_limited, limited, reaches, spend


def spent(times: int, amount: int) -> int:
    """Return how often an amount could be spent."""
    for number in range(times):
        try:
            spend(amount)
        except Enough:
            return number
    return times


def test_without_a_limit_nothing_ends() -> None:
    assert not is_limited()
    assert spent(1000, 1 << 40) == 1000
    reaches(1 << 40)


def test_a_limit_ends_what_comes_behind_it() -> None:
    with limited(100):
        assert is_limited()
        assert spent(20, 10) == 11, "what reaches the limit is used, what begins behind it is not read"
        reaches(DOCUMENT)
        with pytest.raises(Enough):
            reaches(DOCUMENT + 1)
    assert spent(20, 10) == 20


def test_limits_within_a_limit_share_it() -> None:
    @limited(100)
    def whole() -> list[int]:
        found = []
        for _ in range(4):
            with limited(40):
                found.append(spent(20, 10))
        return found

    assert whole() == [5, 5, 1, 0]
    assert whole() == [5, 5, 1, 0], "each call has a limit of its own"
