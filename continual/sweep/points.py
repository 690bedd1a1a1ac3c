"""Make the points of a space, as every combination or as draws, and name them. Torch-free."""

import itertools
import json
import math
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

from continual.errors import ConfigurationError
from continual.store.files import digest
from continual.sweep.spec import Ablation, Dimension

Point = dict[str, Any]
"""Swept key -> value; for a `named` dimension the value's name."""
DIGITS = 4
"""Significant digits of a drawn number: enough for a search, and short enough for a name."""
ATTEMPTS = 1000
"""Draws in a row without a new point, after which a space counts as exhausted."""
LABEL, WORDS = 60, 80
"""Longest label of a value, and longest description of a point in a run's name, in characters."""


def grid_points(space: Mapping[str, Dimension]) -> list[Point]:
    """Return every combination, the last key changing fastest."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*(d.values for d in space.values()))]


def drawn_points(ablation: Ablation) -> list[Point]:
    """Draw `trials` distinct values of the keys that are not under `grid`; combine each with every one of the others.

    The same sweep always has the same points. Raises ConfigurationError if the space has fewer.
    """
    wanted, generator = ablation.trials or 1, random.Random(ablation.search_seed)
    crossed = grid_points({key: d for key, d in ablation.space.items() if d.grid is not None})
    free = {key: d for key, d in ablation.space.items() if d.grid is None}
    draws: dict[str, Point] = {}
    repeats = 0
    while len(draws) < wanted and repeats < ATTEMPTS:
        draw = {key: _draw(dimension, generator) for key, dimension in free.items()}
        repeats = repeats + 1 if digest(draw) in draws else 0
        draws.setdefault(digest(draw), draw)
    if len(draws) < wanted:
        problem = f"{wanted} different points cannot be drawn: the space has only {len(draws)}"
        raise ConfigurationError("trials", problem, "lower it, or write `search: grid`")
    return [{key: (draw | fixed)[key] for key in ablation.space} for draw in draws.values() for fixed in crossed]


def _draw(dimension: Dimension, generator: random.Random) -> Any:
    if dimension.uniform:
        return rounded(generator.uniform(*dimension.uniform), *dimension.uniform)
    if dimension.loguniform:
        low, high = dimension.loguniform
        return rounded(math.exp(generator.uniform(math.log(low), math.log(high))), low, high)
    return generator.choice(dimension.values)


def rounded(value: float, low: float, high: float) -> float:
    """Round to DIGITS significant digits, within the bounds."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def corner_points(space: Mapping[str, Dimension]) -> list[Point]:
    """Return points that together have every listed value and both ends of every range."""
    ends = {key: list(d.bounds or d.values) for key, d in space.items()}
    longest = max((len(values) for values in ends.values()), default=1)
    return [{key: values[min(i, len(values) - 1)] for key, values in ends.items()} for i in range(longest)]


def points(ablation: Ablation) -> list[Point]:
    """Return all points of a grid or of random draws; for a search that chooses them as it runs, the corners."""
    if ablation.search == "grid":
        return grid_points(ablation.space)
    return drawn_points(ablation) if ablation.search == "random" else corner_points(ablation.space)


def misfit(space: Mapping[str, Dimension], point: Point) -> str | None:
    """Return the first key that makes `point` invalid in `space`, or None."""
    fits = {key for key in space if key in point and space[key].holds(point[key])}
    return next((key for key in [*space, *point] if key not in fits), None)


def overrides(ablation: Ablation, point: Point) -> list[str]:
    """Write the point as overrides of a sequence: whole sections before the keys in them."""
    values = {key: named[value] if (named := ablation.space[key].named) else value for key, value in point.items()}
    return [f"{key}={json.dumps(values[key])}" for key in sorted(point, key=lambda key: key.count("."))]


def label(value: Any) -> str:
    """Write a value as one short text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LABEL else f"{text[: LABEL - 3]}..."


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Map every dotted key to its shortest ending that no other key has."""
    parts = {key: key.split(".") for key in keys}

    def short(key: str) -> str:
        for length in range(1, len(parts[key])):
            end = parts[key][-length:]
            if all(other == key or parts[other][-length:] != end for other in parts):
                return ".".join(end)
        return key

    return {key: short(key) for key in parts}


def described(point: Point, seed: int | None = None) -> str:
    """Describe a point in words: `temperature=0.7 loss=kl seed=0`."""
    short = short_keys(point)
    words = [f"{short[key]}={label(value)}" for key, value in point.items()]
    return " ".join(words + ([] if seed is None else [f"seed={seed}"])) or "the base sequence"


def trial_name(sweep: str, point: Point, seed: int) -> str:
    """Name a run: the sweep, the point in words, and a digest that distinguishes points with the same words.

    The name depends only on the arguments, so that the same command finds the runs of the last one.
    """
    words = re.sub(r"[^A-Za-z0-9.]+", "-", described(point, seed) if point else f"seed={seed}").strip("-.")
    return f"{sweep}-{words[:WORDS].strip('-.')}-{digest({'point': point, 'seed': seed})[:6]}"
