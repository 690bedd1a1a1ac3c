"""A chat template goes through `messages` data and `start: template`, with a vocabulary of 151,665 tokens."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from tests.e2e import command

pytestmark = pytest.mark.slow


def test_messages_and_template_start(shared: Path, tmp_path: Path) -> None:
    turns = [
        [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"It is {n}."}] for n in range(40)
    ]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns))
    tokenizer = shared / "models" / "tokenizers" / "qwen2.5-coder"
    sequence = {
        "name": "chat",
        "model": {"type": "python", "build": "tests.e2e.chat_model:build", "tokenizer": str(tokenizer)},
        "stages": [
            {"name": "talk", "data": {"type": "jsonl", "path": "chat.jsonl", "messages": "messages"}, "steps": 3}
        ],
        "mitigation": [{"type": "context_free", "start": "template", "loss": "nll", "ratio": 0.5, "samples": 24,
                        "sample_tokens": 60, "from_stage": 1}],
        "train": {"batch_tokens": 512, "row_tokens": 128, "learning_rate": 1e-3},
    }  # fmt: skip
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(sequence))
    finished = command.run(tmp_path, yaml=tmp_path / "chat.yaml")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(command.summary(tmp_path, "chat")["checkpoints"]["talk"])
    [shard] = list((tmp_path / "store" / "samples").glob("*/shard-000000.arrow"))
    with pa.memory_map(str(shard)) as source:
        starts = pa.ipc.open_file(source).read_all()["start"].to_pylist()
    text = str(loaded.decode(starts[0]))
    assert text.endswith("<|im_start|>user\n")
    assert "Say" not in text
    assert len({tuple(s) for s in starts}) == 1
    steps = command.records(tmp_path, "1-talk", "chat")
    assert len(steps) == 3
    assert all(r["loss"]["context_free"] > 0 for r in steps)
    manifests = [json.loads(p.read_text()) for p in (tmp_path / "store" / "rows").glob("*/manifest.json")]
    [rows] = [m for m in manifests if m.get("documents") == 40]
    answers = sum(len(loaded(one[1]["content"] + "<|im_end|>")["input_ids"]) for one in turns)
    assert rows["counts"]["trained_tokens"] == answers
