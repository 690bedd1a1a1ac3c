"""A tiny project on disk for the tests of configuration and plan: model folder, data, sequence YAML."""

import json
import struct
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<unk>", "<s>", "</s>", "<sort>", *(f"w{number}" for number in range(60))]


def write_model(folder: Path, vocabulary: int = 64, **special: Any) -> Path:
    """Write a folder like that of a model with `vocabulary` entries and a word tokenizer of 64 words."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", **special}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_lines(path: Path, documents: list[Any]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def sequence(**changes: Any) -> dict[str, Any]:
    """Return a valid sequence of two stages over `model/` and `qa.jsonl`; `changes` replace top-level keys."""
    data = {"type": "jsonl", "path": "qa.jsonl", "prompt": "question", "completion": "answer"}
    valid: dict[str, Any] = {
        "name": "tiny",
        "storage": "runs",
        "model": {"type": "pretrained", "source": "model"},
        "stages": [
            {"name": "one", "data": data, "steps": 10, "start_token": "<sort>"},
            {"name": "two", "data": dict(data), "epochs": 2},
        ],
        "mitigation": [{"type": "context_free", "ratio": 0.25}],
        "train": {"batch_tokens": 256, "row_tokens": 32},
        "generate": {"engine": "transformers"},
    }
    return {**valid, **changes}


def write_project(folder: Path) -> Path:
    """Write the project's files and return the YAML's path."""
    write_model(folder / "model")
    write_lines(folder / "qa.jsonl", [{"question": f"w{n % 60} w1", "answer": "w2 w3"} for n in range(100)])
    return write_yaml(folder, sequence())


def write_yaml(folder: Path, value: Any) -> Path:
    path = folder / "seq.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False))
    return path
