"""How many samples a request is about."""

from dataclasses import dataclass
from typing import Any

from continual.store import Artefact


@dataclass(frozen=True)
class Wanted:
    """How many samples: `count`, or as many as fill `rows` rows beside `held_out` ones (see `SampleRequest`)."""

    row_tokens: int
    count: int | None = None
    rows: int | None = None
    held_out: int = 0

    def inputs(self, samples: Artefact) -> dict[str, Any]:
        """Return what decides the packed rows of a set."""
        size = {"rows": self.rows} if self.count is None else {"count": self.count}
        return {"samples": samples.hash, "row_tokens": self.row_tokens, "held_out": self.held_out, **size}
