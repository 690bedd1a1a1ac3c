"""`python -m benchmarks.methods.teacher`: what a cached teacher of k tokens misses of the exact KL, on a real model.

Reads the runs that `python -m benchmarks.methods` made on the stories sequence: the teacher is the start model, the
rows are its own samples, the students are the models after plain fine-tuning and after KL replay.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from benchmarks.methods.arms import SEQUENCES
from benchmarks.methods.runs import ROOT, Arm, read
from benchmarks.record import cell
from continual.data.rows import RowReader
from continual.ledger.ledger import read_events
from continual.ledger.places import placed
from continual.models import load_model
from continual.store import Artefact
from continual.sweep.results import mean_error
from continual.training.losses.sums import kl_sum, kl_topk_sum

STORIES = SEQUENCES["stories"]
LIVE, CACHED = "context_free kl", "context_free kl, cached teacher"
TOP = (8, 20, 64)
ROWS = 32
"""8,192 tokens."""


def arm(name: str, seed: int) -> Arm:
    return Arm(STORIES, name, STORIES.arms[name], seed)


def logits(folder: str, rows: dict[str, np.ndarray]) -> torch.Tensor:
    """Logits [positions, V] of all positions that predict a trained token."""
    model = load_model(folder, "float32")
    ids, positions = (torch.from_numpy(rows[name].astype(np.int64)) for name in ("ids", "positions"))
    with torch.inference_mode():
        found = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits
    return found[:, :-1][torch.from_numpy(rows["weights"][:, 1:] > 0)]


def bias(name: str, seed: int, storage: Path) -> dict[str, Any]:
    """Exact KL(teacher || student) and what k tokens see of it, in nats per token, of one student."""
    folder = storage / arm(LIVE, seed).run_name
    rows_hash = read_events(folder, "prepared")[-1]["inputs"]["context_free"][0]
    rows = RowReader(Artefact("rows", rows_hash, str(storage / "store"))).take(np.arange(ROWS))
    start = placed(read_events(folder, "start_model")[0]["path"], folder.parent)
    student = read(arm(name, seed), storage).summary["checkpoints"]["shakespeare"]
    theirs, ours = logits(start, rows), logits(student, rows)
    each = torch.ones(1)
    exact = torch.stack([kl_sum(o[None], t[None], each) for o, t in zip(ours, theirs, strict=True)]).double()
    log_p = torch.log_softmax(theirs, -1)
    found: dict[str, Any] = {"student": name, "seed": seed, "tokens": len(exact), "kl": float(exact.mean()), "top": {}}
    for k in TOP:
        values, ids = log_p.topk(k, -1)
        seen = [kl_topk_sum(o[None], i[None], v[None], each) for o, i, v in zip(ours, ids, values, strict=True)]
        missed = torch.stack(seen).double() - exact
        found["top"][k] = {
            "bias": float(missed.mean()),
            "relative_bias": float(missed.mean() / exact.mean()),
            "root_mean_square_error": float(missed.square().mean().sqrt()),
            "teacher_mass": float(values.exp().sum(-1).mean()),
        }
    return found


def trained(seeds: list[int], storage: Path) -> dict[str, Any]:
    """Forgetting of TinyStories with a live and with a cached teacher of 64 tokens, by seed, in nats per token."""
    lost = {}
    for name in (LIVE, CACHED):
        results = [read(arm(name, seed), storage) for seed in seeds]
        lost[name] = [result.before(STORIES.old) - result.final(STORIES.old) for result in results]
    difference = [cached - live for live, cached in zip(lost[LIVE], lost[CACHED], strict=True)]
    mean, error = mean_error(difference)
    return {"forgetting": lost, "difference": {"values": difference, "mean": mean, "stderr": error}}


def table(results: dict[str, Any]) -> str:
    lines = ["| student | exact KL | " + " | ".join(f"k = {k}" for k in TOP) + " |", "|" + "---|" * (2 + len(TOP))]
    for name in dict.fromkeys(one["student"] for one in results["bias"]):
        mine = [one for one in results["bias"] if one["student"] == name]
        cells = [cell([one["kl"] for one in mine])]
        for k in TOP:
            relative = [100 * one["top"][k]["relative_bias"] for one in mine]
            error = [one["top"][k]["root_mean_square_error"] for one in mine]
            cells.append(f"{mean_error(relative)[0]:+.2f} %, rms {mean_error(error)[0]:.4f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    live, cached = (results["trained"]["forgetting"][name] for name in (LIVE, CACHED))
    difference = results["trained"]["difference"]
    lines.append("")
    lines.append("nats per token; bias of the mean, and root mean square error per token.")
    lines.append(
        f"Trained with k = 64 the model loses {cell(cached)} of TinyStories, with a live teacher {cell(live)}; "
        f"the difference is {cell(difference['values'])}."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "methods" / "results")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    storage = options.storage.resolve()
    results = {
        "bias": [bias(name, seed, storage) for name in ("plain", LIVE) for seed in options.seeds],
        "trained": trained(options.seeds, storage),
    }
    text = table(results)
    record.write(results, text, options.output, "teacher")
    print(text)


if __name__ == "__main__":
    main()
