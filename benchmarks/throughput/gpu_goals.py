"""The goals of the measurements on a GPU, and the table of what they found."""

from typing import Any

GOALS = (
    ("training: nll", "", "mfu", "≥ 0.45"),
    ("training: nll", "training: bare loop", "ms", "≤ 1.0"),
    ("training: kl 1:4, live teacher", "training: nll, layers run again", "ms", "≤ 1.45"),
    ("training: kl 1:4, cached teacher", "training: nll, layers run again", "ms", "≤ 1.45"),
    ("loss: nll, ours", "loss: nll, plain PyTorch", "ms", "≤ 1.0"),
    ("loss: kl, ours", "loss: kl, plain PyTorch", "ms", "≤ 1.0"),
    ("loss: nll, ours", "loss: nll, plain PyTorch", "GiB", "≤ 0.3"),
    ("loss: kl, ours", "loss: kl, plain PyTorch", "GiB", "≤ 0.3"),
)
"""An arm, the one that it is compared with (none: the number itself is), what is compared, and the goal."""


def table(found: dict[str, Any]) -> str:
    """Return the numbers of all arms as a Markdown table; `mfu` is a share of the GPU's peak."""
    columns = list(dict.fromkeys(key for numbers in found.values() for key in numbers))
    lines = [f"| arm | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, numbers in found.items():
        cells = [f"{numbers[key]:.4g}" if isinstance(numbers.get(key), float) else "" for key in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *compared(found)])


def compared(found: dict[str, Any]) -> list[str]:
    """Return the goals that the arms there are can be held against, a line each."""
    lines = []
    for of, to, key, goal in GOALS:
        one = found.get(of, {}).get(key)
        other = found.get(to, {}).get(key) if to else 1.0
        if one and other:
            beside = f" of {to}" if to else ""
            lines.append(f"{of}: {key} {one / other:.3g}{beside} (goal {goal})")
    return lines
