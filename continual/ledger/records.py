"""The stage's `metrics.jsonl`: one line per optimizer step, written by rank 0, read by the driver as it grows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from continual.store import write_atomic


class Records:
    """Appends records; on resume drops those behind the checkpoint, so each step stands once."""

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_records(path) if line["step"] <= step]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a line cut off by a kill does not count."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


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
