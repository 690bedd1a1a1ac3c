"""A tiny project on disk for the tests of configuration and plan: model folder, data, sequence YAML."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<unk>", "<s>", "</s>", "<sort>", *(f"w{number}" for number in range(60))]


def write_model(folder: Path, vocabulary: int = 64, **special: Any) -> Path:
    """Write a random Llama of one layer with `vocabulary` entries, and a word tokenizer of 64 words, without torch."""
    folder.mkdir(parents=True, exist_ok=True)
    width = 64
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    shapes = {"model.embed_tokens": [vocabulary, width], "lm_head": [vocabulary, width], "model.norm": [width]}
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    parts += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    shapes |= {f"model.layers.0.{part}": [width, width] for part in parts}
    shapes |= {f"model.layers.0.{part}_layernorm": [width] for part in ("input", "post_attention")}
    tensors = {f"{name}.weight": random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
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
