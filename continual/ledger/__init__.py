"""What a run has written: its folder, its events, the records of its steps. Imports neither torch nor ray."""

from continual.ledger.folder import RunFolder, StageFolder
from continual.ledger.ledger import FORMAT, Events, Ledger, read_events, read_ledger

__all__ = ["FORMAT", "Events", "Ledger", "RunFolder", "StageFolder", "read_events", "read_ledger"]
