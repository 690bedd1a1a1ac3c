"""How scores are read, which answer is kept, and which texts are duplicates."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.instructions.committee import best, judge_prompt, mean_score, parse_score
from baselines.instructions.duplicates import first_of_each, shingles
from tests.kits.synthesis import judged


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good.\nScore: 4", 4), ("Score: 1\n\n", 1), ("**Score: 5**", 5), ("score:3.", 3), ("x\nScore: 4/5", 4),
        ("Score: 2.0", 2), ("Score: 0", None), ("Score: 6", None), ("Score: 45", None), ("Score: 3.5", None),
        ("Score: 4\nThat is all.", None), ("I would say Score: 4", None), ("4", None), ("", None), ("Score: <n>", None),
    ],
)  # fmt: skip
def test_a_score_is_the_last_line(text: str, score: int | None) -> None:
    assert parse_score(text) == score


def test_a_judge_sees_request_and_answer_and_nothing_of_who_answered() -> None:
    asked = judge_prompt("Braces {answer}?", "{0} {instruction}")
    assert judged(asked) == ("Braces {answer}?", "{0} {instruction}")
    assert "Score: <n>" in asked


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=3, max_size=3), max_size=9))
def test_the_best_mean_is_kept_and_what_cannot_be_read_is_no_zero(scores: list[list[int | None]]) -> None:
    means = [mean_score(given) for given in scores]
    rational = [(sum(filter(None, g)), len(g) - g.count(None)) for g in scores]
    chosen = best(means, 0, "Sing!")
    if not any(judges for _, judges in rational):
        assert chosen is None
        return
    assert chosen is not None
    assert rational[chosen][1] > 0
    total, judges = rational[chosen]
    for place, (other, of) in enumerate(rational):
        # Exact: compared crosswise in whole numbers.
        if of:
            assert total * of >= other * judges
        else:
            assert means[place] is None


def test_equal_generators_keep_equally_many_answers() -> None:
    kept = Counter(best([4.0, None, 4.0, 3.0, 4.0], 7, f"instruction {number}") for number in range(3000))
    assert set(kept) == {0, 2, 4}
    # 1,000 each are expected, with a standard deviation of 26.
    assert all(880 < count < 1120 for count in kept.values())
    draws = [[best([4.0, 4.0], seed, str(number)) for number in range(64)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


# Duplicates.


def test_of_equal_and_nearly_equal_texts_the_first_is_kept() -> None:
    long = "Please write a short story about a fox that lives near the old mill and steals bread"
    texts = [long, "Something else", long, long.upper(), f"{long} again", "something ELSE", "Anything"]
    kept, exact, near = first_of_each(texts)
    assert kept == [0, 1, 6]
    assert exact == 1
    assert near == 3


@given(st.lists(st.text(alphabet="abc ", max_size=30), max_size=25))
def test_every_text_is_kept_or_counted(texts: list[str]) -> None:
    kept, exact, near = first_of_each(texts)
    assert len(kept) + exact + near == len(texts)
    assert exact == len(texts) - len(set(texts))
    assert (kept, exact, near) == first_of_each(texts)
    for place in range(len(texts)):
        assert first_of_each(texts[:place])[0] == [k for k in kept if k < place]


def test_what_is_kept_differs_by_exact_similarity() -> None:
    words = np.random.default_rng(0)
    base = ["".join(words.choice(list("abcdefghij"), 60)) for _ in range(40)]
    texts = [text[:n] + "".join(words.choice(list("klmno"), 60 - n)) for text in base for n in (60, 58, 30)]
    kept, exact, near = first_of_each(texts)
    chosen = set(kept)
    for at in range(0, len(texts), 3):
        one, close, far = (set(shingles(text)) for text in texts[at : at + 3])
        assert len(one & close) / len(one | close) > 0.9
        assert len(one & far) / len(one | far) < 0.5
        assert at in chosen
        assert at + 1 not in chosen
        assert at + 2 in chosen
    assert exact == 0
    assert near == 40


# The whole way.
