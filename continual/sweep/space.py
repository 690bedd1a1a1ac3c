"""The points of a space: every combination, or so many draws. A point maps swept keys to values. Torch-free."""

import itertools
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from continual.errors import ConfigurationError
from continual.store.files import digest
from continual.sweep.schema import Ablation, Dimension

Point = dict[str, Any]
"""Swept key -> value; of a `named` dimension the value's name."""
DIGITS = 4
"""Significant digits of a drawn number: enough for a search, and short enough for a name."""
ATTEMPTS = 1000
"""Draws in a row without a new point, after which a space counts as drawn out."""
SLUG = 80


def listed(dimension: Dimension) -> list[Any]:
    """The values of a dimension that has an end of them."""
    return list(dimension.choice or dimension.grid or dimension.named or ())


def grid_points(space: Mapping[str, Dimension]) -> list[Point]:
    """Every combination, the last key changing fastest."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*(listed(d) for d in space.values()))]


def drawn_points(ablation: Ablation) -> list[Point]:
    """`trials` distinct draws of what is not under `grid`, each with every combination of what is.

    Pure: the same sweep has the same points. Raises ConfigurationError if there are not so many.
    """
    wanted, generator = ablation.trials or 1, random.Random(ablation.search_seed)
    crossed = grid_points({key: d for key, d in ablation.space.items() if d.grid is not None})
    free = {key: d for key, d in ablation.space.items() if d.grid is None}
    found: dict[str, Point] = {}
    missed = 0
    while len(found) < wanted and missed < ATTEMPTS:
        point = {key: _draw(dimension, generator) for key, dimension in free.items()}
        missed = missed + 1 if digest(point) in found else 0
        found.setdefault(digest(point), point)
    if len(found) < wanted:
        problem = f"the space has no {wanted} different points to draw, only {len(found)}"
        raise ConfigurationError("trials", problem, "lower it, or write `search: grid`")
    return [{key: (drawn | fixed)[key] for key in ablation.space} for drawn in found.values() for fixed in crossed]


def _draw(dimension: Dimension, generator: random.Random) -> Any:
    if dimension.uniform:
        return rounded(generator.uniform(*dimension.uniform), *dimension.uniform)
    if dimension.loguniform:
        low, high = dimension.loguniform
        return rounded(math.exp(generator.uniform(math.log(low), math.log(high))), low, high)
    return generator.choice(listed(dimension))


def rounded(value: float, low: float, high: float) -> float:
    """The number in DIGITS significant digits, kept between the bounds."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def corner_points(space: Mapping[str, Dimension]) -> list[Point]:
    """Points in which every value that is listed, and both ends of every range, stand at least once."""
    ends = {key: list(d.uniform or d.loguniform or listed(d)) for key, d in space.items()}
    longest = max((len(values) for values in ends.values()), default=1)
    return [{key: values[min(at, len(values) - 1)] for key, values in ends.items()} for at in range(longest)]


def points(ablation: Ablation) -> list[Point]:
    """All points of a grid or of random draws; of a search that finds them on its way, the corners."""
    if ablation.search == "grid":
        return grid_points(ablation.space)
    return drawn_points(ablation) if ablation.search == "random" else corner_points(ablation.space)


def misfit(space: Mapping[str, Dimension], point: Point) -> str | None:
    """The key at which a point is none of the space: swept only here or only there, or at a value that is not in it."""
    for key in [*space, *point]:
        if key not in space or key not in point or not _holds(space[key], point[key]):
            return key
    return None


def _holds(dimension: Dimension, value: Any) -> bool:
    if bounds := dimension.uniform or dimension.loguniform:
        return isinstance(value, int | float) and bounds[0] <= value <= bounds[1]
    return value in listed(dimension)


def overrides(ablation: Ablation, point: Point) -> list[str]:
    """The point as overrides of a sequence; whole sections before the keys in them."""
    found = []
    for key in sorted(point, key=lambda key: key.count(".")):
        named = ablation.space[key].named
        found.append(f"{key}={json.dumps(named[point[key]] if named else point[key])}")
    return found


def label(value: Any) -> str:
    """A value as one short text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """For every dotted key its shortest end that no other key has."""
    parts = {key: key.split(".") for key in keys}

    def short(key: str) -> str:
        for length in range(1, len(parts[key])):
            end = parts[key][-length:]
            if all(other == key or parts[other][-length:] != end for other in parts):
                return ".".join(end)
        return key

    return {key: short(key) for key in parts}


def described(point: Point, seed: int | None = None) -> str:
    """`temperature=0.7 loss=kl seed=0`."""
    short = short_keys(point)
    found = [f"{short[key]}={label(value)}" for key, value in point.items()]
    return " ".join(found + ([] if seed is None else [f"seed={seed}"])) or "the base sequence"


def trial_name(sweep: str, point: Point, seed: int) -> str:
    """The run's name: the sweep's, the point in words and a mark that tells points with the same words apart.

    It depends on nothing but its arguments, so that the same command finds the runs of the last one.
    """
    words = re.sub(r"[^A-Za-z0-9.]+", "-", described(point, seed) if point else f"seed={seed}").strip("-.")
    return f"{sweep}-{words[:SLUG].strip('-.')}-{digest({'point': point, 'seed': seed})[:6]}"


def sizes(ablation: Ablation) -> Iterator[str]:
    """What the number of trials is the product of, in words."""
    short = short_keys(ablation.space)
    drawn = ablation.search != "grid"
    if drawn:
        free = [short[key] for key, d in ablation.space.items() if d.grid is None]
        yield f"{ablation.trials} draws of {', '.join(free)} ({ablation.search})"
    for key, dimension in ablation.space.items():
        if not drawn or dimension.grid is not None:
            yield f"{len(listed(dimension))} {short[key]}"
    yield f"{len(ablation.seeds or [0])} {'seeds' if len(ablation.seeds or [0]) > 1 else 'seed'}"
