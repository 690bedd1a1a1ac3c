"""Instruction synthesis through the command line: two local models on vLLM and an OpenAI-compatible server."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tests.e2e import command
from tests.kits.instructions import chat_folder, said, serving

pytestmark = pytest.mark.slow
INSTRUCTIONS, ANSWERS = 16, 2


def answer(body: dict[str, Any], number: int) -> dict[str, Any]:
    """Scores by the length of the judged answer, longest `Served` answers best; answers with the instruction."""
    text = said(body)
    if "Score: <n>" not in text:
        return {"content": f"Served: {len(text)}"}
    judged = text.split("<<<\n")[2].split("\n>>>")[0]
    return {"content": f"Seen.\nScore: {5 if judged.startswith('Served: ') else 2}"}


def write(folder: Path, url: str) -> Path:
    chat_folder(folder / "base", 1)
    chat_folder(folder / "other", 2, turn="[{}]", end="[stop]")
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It is said."}]
    (folder / "chat.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 24)
    generators = [
        {"type": "local", "source": "self"},
        {"type": "local", "source": "./other"},
        {"type": "openai", "url": url, "model": "served", "api_key_env": "SERVED_KEY"},
    ]
    method = {
        "type": "instruction_synthesis", "instructions": INSTRUCTIONS, "answers": ANSWERS, "ratio": 0.5,
        "instruction_tokens": 48, "answer_tokens": 72, "judge_tokens": 16, "instruction_top_p": 1.0,
        "answer_temperature": 1.0, "answer_top_p": 1.0, "generators": generators,
    }  # fmt: skip
    sequence = {
        "name": "talks",
        "model": {"type": "pretrained", "source": "./base"},
        "stages": [
            {"name": "talk", "data": {"type": "jsonl", "path": "chat.jsonl", "messages": "messages"}, "steps": 3}
        ],
        "mitigation": [method],
        "train": {"batch_tokens": 512, "row_tokens": 128, "learning_rate": 1e-3},
        "generate": {"shard_samples": 16},
        "track": {"enabled": False},
    }
    path = folder / "talks.yaml"
    path.write_text(yaml.safe_dump(sequence))
    return path


def manifest(storage: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((storage / "store" / kind).glob("*/manifest.json"))]


def test_two_local_models_and_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_KEY", "secret")
    with serving(answer) as server:
        path = write(tmp_path, server.url)
        finished = command.run(tmp_path, yaml=path)
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
        asked = len(server.requests)
    [pairs] = manifest(tmp_path, "pairs")
    check_counts(pairs)
    # A trial, the answers, and a score of every candidate.
    assert asked == 1 + ANSWERS * pairs["instructions"] + pairs["candidates"]
    check_prompts(tmp_path)
    [folder] = (tmp_path / "store" / "pairs").iterdir()
    kept = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for pair in kept:
        instruction, reply = (turn["content"] for turn in pair["messages"])
        assert reply == f"Served: {len(instruction)}"
        assert pair["score"] == 5.0
        assert pair["generator"] == 2
    [rows] = [m for m in manifest(tmp_path, "rows") if m.get("documents") == len(kept)]
    # Every answer is a token per character and its end of turn.
    assert rows["counts"]["trained_tokens"] == sum(len(pair["messages"][1]["content"]) + 1 for pair in kept)
    steps = command.records(tmp_path, "1-talk", "talks")
    assert len(steps) == 3
    assert all(step["loss"]["instruction_synthesis"] > 0 for step in steps)
    sampled = [m["counts"]["samples"] for m in manifest(tmp_path, "samples")]
    local = 2 * ANSWERS * pairs["instructions"] + 2 * pairs["candidates"]
    assert len(sampled) == 5
    assert sum(sampled) == INSTRUCTIONS + local
    assert "scores unparsable" in finished.stdout
    assert "answers of other" in finished.stdout

    # Another run: the server is gone, and everything is there.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.arrow")}
    again = command.run(tmp_path, "name=again", yaml=path)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.arrow")} == before
    first, second = (command.summary(tmp_path, name) for name in ("talks", "again"))
    made = sum(m["counts"]["tokens"] for m in manifest(tmp_path, "samples"))
    assert (first["generated_tokens"], first["reused_tokens"]) == (made, 0)
    assert (second["generated_tokens"], second["reused_tokens"]) == (0, made)
    once_more = command.run(tmp_path, yaml=path)
    assert once_more.returncode == 0
    assert "forgetting" in once_more.stdout


def check_counts(pairs: dict[str, Any]) -> None:
    dropped = ("failed", "cut", "empty", "duplicates", "near_duplicates")
    assert pairs["sampled"] == INSTRUCTIONS == pairs["instructions"] + sum(pairs[key] for key in dropped)
    replies = ("candidates", "failed_answers", "cut_answers", "empty_answers")
    assert sum(pairs[key] for key in replies) == 3 * ANSWERS * pairs["instructions"]
    assert pairs["judgements"] == 3 * pairs["candidates"]
    # Random local models say nothing that can be read as a score; the server's scores decide.
    assert pairs["unparsable_by"] == [pairs["candidates"], pairs["candidates"], 0]
    assert pairs["unparsable"] == 2 * pairs["candidates"]
    assert pairs["unscored"] == 0
    assert pairs["kept"] == pairs["instructions"] >= 2
    assert pairs["kept_by"] == [0, 0, pairs["kept"]]
    assert pairs["candidates"] > ANSWERS * pairs["instructions"], "no local answer came to an end"


def check_prompts(storage: Path) -> None:
    """Instructions begin with the bare user header; each model is asked in its own tokens."""
    from transformers import AutoTokenizer

    begun = []
    for path in (storage / "store" / "samples").glob("*/shard-000000.arrow"):
        with pa.memory_map(str(path)) as source:
            ids = pa.ipc.open_file(source).read_all()["start"].to_pylist()
        texts = {name: AutoTokenizer.from_pretrained(storage / name).decode(ids[0]) for name in ("base", "other")}
        if texts["base"] == "<|user|>":
            assert all(one == ids[0] for one in ids)
        begun.append((texts["base"] == "<|user|>", texts["base"][:8], texts["other"][:6]))
    assert sum(bare for bare, _, _ in begun) == 1
    assert sum(text == "<|user|>" for _, text, _ in begun) == 3
    assert sum(text == "[user]" for *_, text in begun) == 2
