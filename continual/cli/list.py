"""The command `list`: registered types with their options, from the models that validate them."""

import argparse
import textwrap
from collections.abc import Sequence as Arguments

LISTS = ("mitigations",)


def main(arguments: Arguments[str] | None = None, prog: str = "continual list") -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description="Print all of these with their options.")
    parser.add_argument("list", choices=LISTS)
    parser.parse_args(arguments)
    print(list_mitigations())
    return 0


def list_mitigations() -> str:
    """Return every type with its summary, its source, and one line per option: name, default, meaning."""
    from continual.contract.registry import MITIGATIONS

    blocks = []
    for kind in MITIGATIONS.names():
        mitigation = MITIGATIONS.load(kind)
        summary = (mitigation.__doc__ or "").strip().splitlines()[0]
        lines = [kind, f"  {summary}", f"  source: {mitigation.reference}"]
        for name, field in mitigation.model_fields.items():
            if name == "type":
                continue
            default = "required" if field.is_required() else f"{field.default!r}".replace("None", "null")
            text = f"  {name:<16} {default:<14} {field.description or ''}"
            lines += textwrap.wrap(text, 118, subsequent_indent=" " * 33, break_long_words=False)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
