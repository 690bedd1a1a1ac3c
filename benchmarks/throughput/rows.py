"""Tokenize and pack short documents: as a run does it, and with `datasets.map`.

`python -m benchmarks.throughput.rows` writes documents of words from the manual into a file, trains a tokenizer on them
(or takes `--tokenizer`), and lets both sides, in fresh processes and on the same cores, make packed rows on disk from
that file. Both clocks run from a started process, of continual with a started Ray, to the rows, and hold all imports.
`datasets` packs with the same best fit, and writes ids, positions and documents.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides

CONTINUAL, DATASETS = "continual", "datasets"
ROW_TOKENS = 256
WORDS = (4, 30)
"""Fewest and most words of a document."""
VOCABULARY = 8192
TRAINED_ON = 10_000
"""Documents that the tokenizer is trained on."""
END = "<end>"


def documents(count: int) -> Iterator[str]:
    """Yield texts of words from the manual, the same ones every time."""
    words = [word for page in sorted((sides.ROOT / "docs").glob("*.md")) for word in page.read_text().split()]
    rng = random.Random(0)
    for _ in range(count):
        yield " ".join(rng.choices(words, k=rng.randint(*WORDS)))


def write_tokenizer(folder: Path, texts: Iterator[str]) -> None:
    """Train a tokenizer of bytes and their merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END).save_pretrained(folder)


def with_continual(file: Path, tokenizer: Path, folder: Path) -> dict[str, float]:
    import ray

    from continual.data.prepare import prepare_rows
    from continual.data.sources.jsonl import JsonlSource
    from continual.run.cluster import LOCAL_SYSTEM
    from continual.store import Store

    environment = {"env_vars": {"PYTHONPATH": str(sides.ROOT)}}
    ray.init(
        address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False,
        runtime_env=environment, _system_config=dict(LOCAL_SYSTEM),
    )  # fmt: skip
    source = JsonlSource(path=str(file), text="text")
    first: list[float] = []
    with sides.used() as used:
        begin = time.perf_counter()
        rows = prepare_rows(
            Store(folder), source, str(tokenizer), ROW_TOKENS, lambda read: first.append(time.perf_counter() - begin)
        )
    counts = rows.manifest()["counts"]
    ray.shutdown()
    return _numbers(used, counts["tokens"], counts["rows"]) | {"first_shard_seconds": first[0]}


def with_datasets(file: Path, tokenizer: Path, folder: Path, processes: int) -> dict[str, float]:
    """`datasets.map` twice, with as many processes as there are cores."""
    with sides.used() as used:
        import datasets

        from continual.models.load import load_tokenizer

        encoder = load_tokenizer(str(tokenizer))
        datasets.disable_progress_bars()
        loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder))
        options: dict[str, Any] = {"batched": True, "num_proc": processes if processes > 1 else None}
        encoded = loaded.map(partial(encode, encoder), remove_columns=loaded.column_names, **options)
        packed = encoded.map(pack, remove_columns=encoded.column_names, **options)
        packed.save_to_disk(str(folder / "packed"))
    return _numbers(used, sum(map(len, packed["ids"])), len(packed))


def encode(tokenizer: Any, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    ids = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return {"ids": [[*document, tokenizer.eos_token_id] for document in ids]}


def pack(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return rows of whole documents, not filled up."""
    from continual.data.packing import best_fit

    ids = batch["ids"]
    bins = best_fit([len(document) for document in ids], ROW_TOKENS)
    return {
        "ids": [list(chain.from_iterable(ids[item] for item in items)) for items in bins],
        "positions": [list(chain.from_iterable(range(len(ids[item])) for item in items)) for items in bins],
        "documents": [list(chain.from_iterable([item] * len(ids[item]) for item in items)) for items in bins],
    }


def _numbers(used: sides.Used, tokens: int, rows: int) -> dict[str, float]:
    return {
        "seconds": used.seconds, "cpu_seconds": used.cpu_seconds, "largest_mib": used.largest_mib, "tokens": tokens,
        "rows": rows, "tokens_per_second": tokens / used.seconds,
    }  # fmt: skip


def measure(count: int, rounds: int, tokenizer: Path | None) -> dict[str, Any]:
    """Return the numbers of both sides, and how much faster continual is than `datasets`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "documents.jsonl"
        with file.open("w") as out:
            out.writelines(json.dumps({"text": text}) + "\n" for text in documents(count))
        if tokenizer is None:
            tokenizer = folder / "tokenizer"
            write_tokenizer(tokenizer, documents(min(count, TRAINED_ON)))

        def one(side: str) -> dict[str, float]:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                return sides.in_process(
                    "benchmarks.throughput.rows", "--side", side, "--file", str(file), "--tokenizer", str(tokenizer),
                    "--folder", place,
                )  # fmt: skip

        found = sides.alternate({side: partial(one, side) for side in (CONTINUAL, DATASETS)}, rounds)
    return {
        "documents": count,
        "sides": sides.summary(found),
        "ratio": sides.ratio(found, "tokens_per_second", CONTINUAL, DATASETS),
    }


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| side | s | CPU s | tokens/s | first shard, s | largest process, MiB |", "|---|---|---|---|---|---|"]
    for side, numbers in results["sides"].items():
        of = numbers["median"]
        first = f"{of['first_shard_seconds']:.1f}" if "first_shard_seconds" in of else ""
        lines.append(
            f"| {side} | {of['seconds']:.1f} | {of['cpu_seconds']:.1f} | {of['tokens_per_second']:,.0f} | {first} "
            f"| {of['largest_mib']:.0f} |"
        )
    found = results["ratio"]
    span = f"{found['lowest']:.2f} to {found['highest']:.2f}, {len(found['rounds'])} rounds"
    said = f"{results['documents']:,} documents. Tokens per second: {found['median']:.2f} of `datasets` ({span})."
    return "\n".join([*lines, "", said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer; without it one is trained")
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--side", choices=(CONTINUAL, DATASETS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == CONTINUAL:
        print(json.dumps(with_continual(given.file, given.tokenizer, given.folder)))
    elif given.side == DATASETS:
        print(json.dumps(with_datasets(given.file, given.tokenizer, given.folder, os.cpu_count() or 1)))
    else:
        results = measure(given.documents, given.rounds, given.tokenizer)
        sides.write(results, table(results), given.output, "rows")


if __name__ == "__main__":
    main()
