"""What a run has written: its folder, its events, the records of its steps. Imports neither torch nor ray."""

from continual.ledger.ledger import Ledger, read_events

__all__ = ["Ledger", "read_events"]
