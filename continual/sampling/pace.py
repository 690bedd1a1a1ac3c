"""How far sampling may be ahead of the training that reads its rows."""

from dataclasses import dataclass
from pathlib import Path

from continual.ledger.events import is_record
from continual.ledger.lines import Tail

STEPS_READ_AHEAD = 32
"""Steps whose rows the readers of a stage may wait for while none of them is made (see `training.ingest`)."""


@dataclass
class Pace:
    """The training that reads rows in order: `step_rows` in every step of those that are recorded in `records`.

    `ahead`: shards of rows that may be there beyond those that the training reads now. `recorded_every`: the steps of
    which records are written together; training may be so far beyond the last of them. Nothing pauses before the file
    `fed` exists: another stream may wait for this one's engine, and the training for both.
    """

    records: Path
    fed: Path
    step_rows: int
    ahead: int
    recorded_every: int = 1

    def __post_init__(self) -> None:
        self._step, self._tail = 0, Tail(self.records, is_record)

    def shards(self, starts: list[int], held_out: int) -> int | None:
        """Return how many shards of rows should be there by now: always more than those that begin with the rows
        `starts` if the training may wait for them; None before it begins. `starts` ends with the rows so far.
        """
        if not self.fed.exists():
            return None
        for record in self._tail.read():
            self._step = record["step"]
        steps = self._step + self.recorded_every - 1 + STEPS_READ_AHEAD
        needed = held_out + steps * self.step_rows
        reading = sum(start <= needed for start in starts)
        return reading + self.ahead
