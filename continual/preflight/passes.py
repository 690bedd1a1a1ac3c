"""How often a stage reads the rows that it replays, as far as that is known before it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from continual.contract.mitigation import Mitigation
from continual.contract.view import StageView
from continual.errors import ConfigurationError
from continual.preflight.estimate import estimated_rows, stored_rows
from continual.preflight.tokenizer_facts import TokenizerFacts


def replay_passes(
    active: list[tuple[str, Mitigation]],
    view: StageView,
    prepared: Mapping[str, Any],
    store: Path,
    tokenizer: TokenizerFacts | None,
    warnings: list[str],
) -> dict[str, float]:
    """Return rows read per row there by stream, where one pass may not suffice; warn of what is read again.

    The passes are exact once the stage is prepared, and the least before.

    Args:
        active: The mitigations that act in the stage, by their key.
        view: The stage, with its steps.
        prepared: What the ledger's event says of the stage, {} before it is prepared.
        store: The store.
        tokenizer: The tokenizer, None if unknown.
        warnings: Gets the sentences.
    """
    found: dict[str, float] = {}
    for key, mitigation in active:
        read = view.replay_rows(mitigation.replay_ratio())
        known = prepared.get("passes", {}).get(mitigation.label)
        there = known["rows"] if known else _most_rows(mitigation, view, store, tokenizer)
        if not read or there is None:
            continue
        passes = found[mitigation.label] = read / max(1, there)
        if passes > 1:
            size = f"{there} there" if known else f"at most {there} there"
            warnings.append(f"{key}: stage {view.number} replays {read} rows, {size}: each {passes:.1f} times")
    return found


def _most_rows(mitigation: Mitigation, view: StageView, store: Path, tokenizer: TokenizerFacts | None) -> int | None:
    """Return about the most rows that the mitigation can replay, None for as many as the stage reads."""
    most = mitigation.most_rows(view)
    if most is not None or not mitigation.data_sources():
        return most
    total = 0
    for source in mitigation.data_sources().values():
        rows = stored_rows(store, source, view.row_tokens)
        if rows is None:
            try:
                rows = estimated_rows(source, tokenizer, view.row_tokens)[0]
            except ConfigurationError:
                return None  # the check of the source has its own sentence
        if rows is None:
            return None
        total += rows
    return total - min(mitigation.held_out_rows(view), total // 2)
