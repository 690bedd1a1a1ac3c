"""How lines are drawn: long ones as means, and no two alike."""

import math

from continual.show.plots import COLORS, style
from continual.show.report.draw import POINTS, thin


def test_long_lines_become_means() -> None:
    steps, values = list(range(1, 1002)), [float(step % 3) for step in range(1001)]
    x, y = thin(steps, values)
    assert len(x) == len(y) == math.ceil(1001 / 3) <= POINTS
    assert x[0] == 2.0
    assert y[0] == 1.0
    assert x[-1] == (1000 + 1001) / 2
    assert thin(steps[:400], values[:400]) == ([float(step) for step in steps[:400]], values[:400])


def test_no_two_series_look_alike() -> None:
    looks = [tuple(style(number).values()) for number in range(28)]
    assert len(set(looks)) == 28
    assert {colour for colour, _ in looks} == set(COLORS)
