"""Points: combinations, draws, corners, names, overrides."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from continual.errors import ConfigurationError
from continual.sweep.points import corner_points, drawn_points, grid_points, overrides, short_keys, trial_name
from continual.sweep.spec import Ablation
from tests.kits.sweep import ablation


@settings(deadline=None)  # a busy machine takes longer now and then
@given(st.integers(0, 10**6), st.floats(1e-6, 1e3), st.floats(1.001, 1e3))
def test_draws_lie_in_their_ranges_and_are_reproducible(seed: int, low: float, factor: float) -> None:
    space = {"u": {"uniform": [low, low * factor]}, "l": {"loguniform": [low, low * factor]}, "c": {"choice": [1, [2]]}}
    spec = ablation(space={**space, "g": {"grid": ["x", "y"]}}, search_seed=seed)
    try:
        points = drawn_points(spec)
    except ConfigurationError:
        assume(False)
    assert points == drawn_points(spec)
    assert len(points) == 16
    assert all(low <= point[key] <= low * factor for point in points for key in "ul")
    assert all(point["c"] in (1, [2]) for point in points)
    assert [point["g"] for point in points] == ["x", "y"] * 8
    assert len({json.dumps(point) for point in points}) == 16


def test_loguniform_is_uniform_in_the_logarithm() -> None:
    points = drawn_points(ablation(space={"l": {"loguniform": [1e-4, 1.0]}}, trials=2000))
    shares = np.histogram([math.log10(point["l"]) for point in points], bins=4, range=(-4, 0))[0] / 2000
    # Four standard errors of a share of a quarter.
    assert np.all(np.abs(shares - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000))


def test_corners_have_every_listed_value_and_both_ends() -> None:
    space = ablation(space={"u": {"uniform": [1, 2]}, "c": {"choice": [1, 2, 3]}, "n": {"named": {"x": []}}}).space
    points = corner_points(space)
    assert {p["u"] for p in points} == {1, 2}
    assert {p["c"] for p in points} == {1, 2, 3}
    assert points[0]["n"] == "x"


def test_names_depend_on_point_and_seed_alone_and_are_distinct() -> None:
    values: list[Any] = [1, 1.0, "1", True, None, [1], {"a": 1}, "a" * 300, "a" * 301, "ä/ö"]
    names = [trial_name("s", {"k": value}, seed) for value in values for seed in (0, 1)]
    # 1 and 1.0 are the same number, but YAML tells them apart, and so may a schema.
    assert len(set(names)) == len(names)
    assert names == [trial_name("s", {"k": value}, seed) for value in values for seed in (0, 1)]
    Ablation.model_validate({"name": names[0], "sequence": "s"})
    assert all(len(name) < 120 for name in names)
    for name in names:
        Ablation.model_validate({"name": name, "sequence": "s"})


def test_short_keys_stay_distinct() -> None:
    assert short_keys(["mitigation.0.weight", "train.weight", "train.max_grad_norm", "seed"]) == {
        "mitigation.0.weight": "0.weight", "train.weight": "train.weight", "train.max_grad_norm": "max_grad_norm",
        "seed": "seed",
    }  # fmt: skip


def test_sections_are_overridden_before_keys_in_them() -> None:
    spec = ablation(space={"a.b": {"choice": [1]}, "a": {"named": {"x": {"b": 2}}}})
    assert overrides(spec, {"a.b": 1, "a": "x"}) == ['a={"b": 2}', "a.b=1"]


def test_a_grid_over_nothing_is_one_point() -> None:
    assert grid_points({}) == [{}]
