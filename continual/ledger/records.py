"""The stage's `metrics.jsonl`: one line per optimizer step, written by rank 0, read by the driver as it grows."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from continual.ledger.lines import read_lines, write_line
from continual.store import write_atomic


class Records:
    """Appends records, each with its time; a resume drops those after the checkpoint, so each step occurs once."""

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_lines(path) if line["step"] <= step]
        # A new file, never the old one cut: readers of the old one notice.
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        write_line(self.file, {**record, "time": round(time.time(), 3)})


def rows_hash(arrays: dict[str, np.ndarray], worker: Any) -> dict[str, str]:
    """A hash of the row numbers that all ranks read in this step, by stream, whatever the number of ranks."""
    import torch
    import torch.distributed as dist

    out = {}
    for name in (stream.name for stream in worker.job.streams):
        mine = torch.from_numpy(np.array(arrays[f"{name}/row"][0]))
        if worker.world_size > 1:
            mine = mine.to(worker.device)
            parts = [torch.empty_like(mine) for _ in range(worker.world_size)]
            dist.all_gather(parts, mine)
            # Ranks take every world_size-th row: interleaving restores the global order.
            mine = torch.stack(parts, dim=1).reshape(-1).cpu()
        numbers = mine[mine >= 0].numpy().astype(np.int64)
        out[name] = hashlib.sha256(numbers.tobytes()).hexdigest()[:16]
    return out
