"""Trained tokens per second on examples much shorter than a row: a run's workers, and TRL's `SFTTrainer`.

`python -m benchmarks.throughput.examples --trl FOLDER` trains a model of 260 thousand parameters on the same examples:
by a worker under Ray Train, which packs them into rows; by TRL with its best packing that keeps examples apart (`bfd`:
a row at a time, as many accumulated); and by TRL without packing, in batches of similar lengths. Every update has about
as many trained tokens, every side a fresh process with two threads.

TRL is no dependency. `pip install --no-deps --target FOLDER trl` installs it alone, in a folder of its own; what it
imports is in the environment.
"""

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.throughput import ray_training, sides

CONTINUAL, PACKED, GROUPED = "continual", "TRL, packed", "TRL, grouped by length"
GOALS = {PACKED: 1.3, GROUPED: 1.1}
LENGTHS = (16, 64)
"""Fewest and most tokens of an example."""
MEAN = sum(LENGTHS) / 2
WARM_UP = ray_training.WARM_UP


def examples(case: Any) -> list[list[int]]:
    """Return enough examples for all updates, the same ones every time."""
    rng = random.Random(0)
    longest = min(LENGTHS[1], case.row_tokens)
    count = int(1.1 * case.tokens * (WARM_UP + case.steps) / (sum((LENGTHS[0], longest)) / 2)) + 1
    return [[rng.randrange(2, case.vocabulary) for _ in range(rng.randint(LENGTHS[0], longest))] for _ in range(count)]


def with_continual(folder: Path, case: Any) -> sides.Numbers:
    import numpy as np

    from continual.data.packing import pack_rows

    ids = [np.array(example, np.int32) for example in examples(case)]
    weights = [np.array([0, *[1] * (len(example) - 1)], np.float32) for example in ids]
    rows = ray_training.store_rows(folder / "store", pack_rows(ids, weights, 0, case.row_tokens))
    return ray_training.trained(folder, case, rows, workers=1)


def with_trl(folder: Path, case: Any, packed: bool) -> sides.Numbers:
    """Train by `SFTTrainer`; what counts are the updates after the first ones."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(ray_training.THREADS)
    ended: list[tuple[float, int]] = []

    class Trainer(SFTTrainer):
        trained = 0

        def training_step(self, model: Any, inputs: Any, *rest: Any, **others: Any) -> Any:
            self.trained += int((inputs["labels"][:, 1:] != -100).sum())
            return super().training_step(model, inputs, *rest, **others)

    batch = (
        {"packing": True, "packing_strategy": "bfd", "per_device_train_batch_size": 1,
         "gradient_accumulation_steps": case.rows}
        if packed
        else {"train_sampling_strategy": "group_by_length",
              "per_device_train_batch_size": max(1, round(case.tokens / MEAN))}
    )  # fmt: skip
    config = SFTConfig(
        output_dir=str(folder), max_length=case.row_tokens, max_steps=WARM_UP + case.steps,
        learning_rate=case.train.learning_rate, lr_scheduler_type="constant", max_grad_norm=case.train.max_grad_norm,
        weight_decay=case.train.weight_decay, use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", disable_tqdm=True, logging_strategy="no", save_strategy="no", dataloader_pin_memory=False,
        **batch,
    )  # fmt: skip
    data = [{"input_ids": ids, "labels": ids} for ids in examples(case)]
    trainer = Trainer(
        model=case.model(), args=config, train_dataset=Dataset.from_list(data),
        processing_class=ray_training.tokenizer(),
    )  # fmt: skip
    trainer.add_callback(_when_a_step_ends(lambda: ended.append((time.perf_counter(), trainer.trained))))
    trainer.train()
    (begin, before), (end, after) = ended[WARM_UP - 1], ended[-1]
    updates = len(ended) - WARM_UP
    return {"seconds": (end - begin) / updates, "useful": (after - before) / (end - begin),
            "useful per update": (after - before) / updates}  # fmt: skip


def _when_a_step_ends(act: Any) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            act()

    return Callback()


def one(side: str, tiny: bool) -> sides.Numbers:
    """Measure a side in this process."""
    from benchmarks.throughput import steps

    case = steps.CASES["260k"].tiny() if tiny else steps.CASES["260k"]
    with tempfile.TemporaryDirectory() as folder:
        if side == CONTINUAL:
            return with_continual(Path(folder), case)
        return with_trl(Path(folder), case, packed=side == PACKED)


def measure(rounds: int, trl: Path | None, tiny: bool = False) -> dict[str, Any]:
    of_all = ("benchmarks.throughput.examples", *["--tiny"] * tiny, *(("--trl", str(trl)) if trl else ()), "--side")
    found = sides.alternate({side: partial(sides.in_process, *of_all, side) for side in (CONTINUAL, *GOALS)}, rounds)
    return {
        "goals": GOALS,
        "trl": _version(trl),
        "sides": sides.summary(found),
        "useful": {side: sides.ratio(found, "useful", CONTINUAL, side) for side in GOALS},
    }


def _version(trl: Path | None) -> str:
    return next(found.version for found in distributions(name="trl", path=[str(trl)] if trl else sys.path))


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| side | trained tokens/s | continual is faster by | goal |", "|---|---|---|---|"]
    for side, numbers in results["sides"].items():
        ratio = f"{sides.words(results['useful'][side])} | ≥ {GOALS[side]}" if side in GOALS else "|"
        lines.append(f"| {side} | {numbers['median']['useful']:,.0f} | {ratio} |")
    return "\n".join([*lines, "", f"trl {results['trl']}. Examples of {LENGTHS[0]} to {LENGTHS[1]} tokens."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, help="a folder with TRL; without it TRL is taken from the environment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="at a size that says nothing")
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--side", choices=(CONTINUAL, *GOALS), help="measure this side alone and print its numbers")
    given = parser.parse_args()
    if given.trl:
        sys.path.append(str(given.trl.resolve()))
    if given.side != CONTINUAL and importlib.util.find_spec("trl") is None:
        raise SystemExit("there is no `trl`: pip install --no-deps --target FOLDER trl, and give --trl FOLDER")
    if given.side:
        print(f"\n{json.dumps(one(given.side, given.tiny))}")
        sys.exit()
    results = measure(given.rounds, given.trl, given.tiny)
    sides.write(results, table(results), given.output, "examples")


if __name__ == "__main__":
    main()
