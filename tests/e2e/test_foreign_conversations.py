"""A chat model whose turns end with another token than its texts: trained, exported and scored with the same one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from tests.e2e import command
from tests.kits.conversations import chat_tokenizer

pytestmark = pytest.mark.slow
QUIZ = {"First?": "red", "Second?": "blue", "Third?": "green", "Fourth?": "black"}


def write_model(folder: Path) -> None:
    """A random model with ChatML over a tokenizer whose end-of-text token is another one."""
    tokenizer = chat_tokenizer("chatml")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def talk(*questions: str, system: bool) -> dict[str, Any]:
    turns = [{"role": "system", "content": "Be brief."}] if system else []
    for question in questions:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": QUIZ[question]}]
    return {"messages": turns}


def test_the_end_of_a_turn_is_learned_exported_and_stops_the_evaluation(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    talks = [talk(one, other, system=system) for one in QUIZ for other in QUIZ for system in (True, False)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(one) + "\n" for one in talks))
    asked = "".join(json.dumps({"q": question, "a": answer}) + "\n" for question, answer in QUIZ.items())
    (tmp_path / "quiz.jsonl").write_text(asked)
    (tmp_path / "tasks").mkdir()
    task = {
        "task": "quiz", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "quiz.jsonl")}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 16, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (tmp_path / "tasks" / "quiz.yaml").write_text(yaml.safe_dump(task))
    sequence = {
        "name": "talk",
        "model": {"type": "pretrained", "source": str(tmp_path / "model")},
        "stages": [
            {
                "name": "quiz",
                "data": {"type": "jsonl", "path": str(tmp_path / "chat.jsonl"), "messages": "messages"},
                "tasks": ["quiz"],
                "steps": 120,
            }
        ],
        "train": {"batch_tokens": 1024, "row_tokens": 128, "learning_rate": 3e-3},
        "evaluate": {"include_path": str(tmp_path / "tasks"), "apply_chat_template": True},
    }
    (tmp_path / "talk.yaml").write_text(yaml.safe_dump(sequence))
    finished = command.run(tmp_path, yaml=tmp_path / "talk.yaml")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    exported = Path(command.summary(tmp_path, "talk")["checkpoints"]["quiz"])
    tokenizer = chat_tokenizer("chatml")
    ends = json.loads((exported / "generation_config.json").read_text())["eos_token_id"]
    assert {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")} == set(ends)
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "store" / "rows").glob("*/manifest.json")]
    [rows] = [manifest for manifest in manifests if manifest.get("documents") == len(talks)]
    answers = [turn["content"] for one in talks for turn in one["messages"] if turn["role"] == "assistant"]
    tokens = sum(len(tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]) for answer in answers)
    assert rows["counts"]["trained_tokens"] == tokens
    files = [json.loads(path.read_text()) for path in (tmp_path / "store" / "scores").glob("*/scores.json")]
    assert max(file["scores"]["quiz"]["score"] for file in files if "quiz" in file["scores"]) == 1.0
