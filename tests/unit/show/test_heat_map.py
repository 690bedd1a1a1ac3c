"""The heat map's colors lead to the numbers' own conclusion: what lost more is darker, in every run alike."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.forgetting import Score, StageScores
from continual.show.heat_map import ScoreMatrix, draw_matrix, largest_changes
from continual.show.plots import figure

NATS = "nats/token"


def run(
    *rows: dict[str, float], learned: dict[str, int] | None = None, units: dict[str, str] | None = None
) -> ScoreMatrix:
    matrix = [StageScores(k, "", {task: Score(score) for task, score in row.items()}) for k, row in enumerate(rows)]
    return ScoreMatrix(matrix, learned or {}, units or {})


def drawn(one: ScoreMatrix, largest: dict[str, float]) -> Any:
    with figure(4, 3) as picture:
        axes = picture.subplots()
        draw_matrix(one, largest, axes)
        return axes.images[0], picture


def redness(one: ScoreMatrix, largest: dict[str, float]) -> np.ndarray:
    """How much redder than blue each cell is, rows x tasks."""
    image, _ = drawn(one, largest)
    colors = image.to_rgba(image.get_array())
    return colors[..., 0] - colors[..., 2]


def test_changes_are_since_the_stage_that_learned_and_before_that_since_the_start() -> None:
    one = run({"a": 0.1, "b": 0.2, "old": 0.9}, {"a": 0.8, "b": 0.25, "old": 0.7}, {"a": 0.5, "b": 0.9, "old": 0.95},
              learned={"a": 1, "b": 2})  # fmt: skip
    expected = [[0.0, 0.0, 0.0], [0.0, 0.05, -0.2], [-0.3, 0.0, 0.05]]
    np.testing.assert_allclose(one.changes(), expected, atol=1e-12)


def test_what_was_not_measured_has_no_change() -> None:
    one = run({"a": 0.5}, {"a": 0.4, "b": 0.3}, {"b": 0.2}, learned={"b": 1})
    np.testing.assert_allclose(one.changes(), [[0.0, np.nan], [-0.1, 0.0], [np.nan, -0.1]])


def test_a_small_loss_of_one_run_is_paler_than_a_large_one_of_another() -> None:
    kept = run({"stories": -1.36}, {"stories": -1.70}, units={"stories": NATS})
    lost = run({"stories": -1.36}, {"stories": -7.11}, units={"stories": NATS})
    largest = largest_changes([kept, lost])
    assert largest == {NATS: pytest.approx(5.75)}
    small, large = redness(kept, largest)[1, 0], redness(lost, largest)[1, 0]
    assert 0 < small < 0.25 * large


@settings(max_examples=20)
@given(st.lists(st.integers(-60, 60).map(lambda tenths: tenths / 10), min_size=2, max_size=4))
def test_colors_are_in_the_order_of_losses(losses: list[float]) -> None:
    runs = [run({"a": 1.0}, {"a": 1.0 - loss}, units={"a": NATS}) for loss in losses]
    largest = largest_changes(runs)
    if not largest[NATS] > 0.1:
        return
    for loss, one in zip(losses, runs, strict=True):
        image, _ = drawn(one, largest)
        # The place on the color bar: -1 is the largest loss, where red ends.
        assert float(image.get_array()[1, 0]) == pytest.approx(-loss / largest[NATS])
        color = image.to_rgba(image.get_array())[1, 0]
        if abs(loss) > 0.05 * largest[NATS]:
            assert (color[0] > color[2]) == (loss > 0)


def test_units_have_ends_of_their_own_on_one_bar() -> None:
    units = {"task": "accuracy", "text": NATS}
    one = run({"task": 0.9, "text": -1.0}, {"task": 0.4, "text": -5.0}, units=units)
    largest = largest_changes([one])
    assert largest == {"accuracy": pytest.approx(0.5), NATS: pytest.approx(4.0)}
    colors = redness(one, largest)
    assert colors[1, 0] == pytest.approx(colors[1, 1])
    _, picture = drawn(one, largest)
    bar = picture.axes[1]
    assert [label.get_text() for label in bar.get_xticklabels()] == [
        "-0.5 accuracy\n-4 nats/token", "0", "+0.5 accuracy\n+4 nats/token",
    ]  # fmt: skip
    assert bar.get_xlabel() == "change since learned\n(before: since the start)"


def test_nothing_changed_is_white() -> None:
    one = run({"a": 0.5}, {"a": 0.5})
    assert abs(redness(one, largest_changes([one]))).max() < 0.05
