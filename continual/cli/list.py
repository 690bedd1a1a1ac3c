"""`--list mitigations`: every registered type with its options, from the schema that validates them."""

import textwrap

from continual.contract.mitigation import REGISTRY


def list_mitigations() -> str:
    """Types with summary, source, and one line per option: name, default, meaning."""
    blocks = []
    for kind in REGISTRY.names():
        found = REGISTRY.load(kind)
        summary = (found.__doc__ or "").strip().splitlines()[0]
        lines = [kind, f"  {summary}", f"  source: {found.source}"]
        for name, field in found.model_fields.items():
            if name == "type":
                continue
            default = "required" if field.is_required() else f"{field.default!r}".replace("None", "null")
            text = f"  {name:<16} {default:<14} {field.description or ''}"
            lines += textwrap.wrap(text, 118, subsequent_indent=" " * 33, break_long_words=False)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
