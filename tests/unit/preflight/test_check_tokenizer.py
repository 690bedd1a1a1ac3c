"""What the real tokenizer and its template refuse is said by the check, with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.errors import ConfigurationError
from continual.preflight.check_tokenizer import check_tokenizer
from tests.kits.conversations import SYSTEM, TALK, chat_tokenizer
from tests.kits.project import sequence, write_lines, write_yaml

PLAIN: dict[str, Any] = {"mitigation": [], "train": {"batch_tokens": 256, "row_tokens": 128}}


def chats(folder: Path, name: str, *documents: Any, template: str = "", **changes: Any) -> Any:
    """Return a sequence whose model has the tokenizer of a kind, and whose one stage reads conversations."""
    tokenizer = chat_tokenizer(name)
    for file in (folder / "model").glob("*token*"):
        file.unlink()
    tokenizer.save_pretrained(folder / "model")
    if template:
        (folder / "model" / "chat_template.jinja").write_text(template)
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "vocab_size": len(tokenizer)}))
    write_lines(folder / "chat.jsonl", [{"messages": turns} for turns in documents])
    data = {"type": "jsonl", "path": "chat.jsonl", "messages": "messages"}
    stages = [{"name": "one", "data": data, "steps": 2}]
    return load_sequence(str(write_yaml(folder, sequence(stages=stages, **{**PLAIN, **changes})))).sequence


def test_good_conversations_pass(project: Path) -> None:
    assert check_tokenizer(chats(project, "chatml", TALK, [SYSTEM, *TALK])) == []


@pytest.mark.parametrize(
    ("name", "turns", "words"),
    [
        ("gemma2", [SYSTEM, *TALK], "chat.jsonl line 2: the chat template refuses .*System role not supported"),
        ("mistral-v1", [TALK[1]], "chat.jsonl line 2: the chat template refuses"),
        ("deepseek-r1", [TALK[0], {"role": "assistant", "content": "a</think>b"}], "line 2: .* leaves out"),
    ],
)
def test_what_the_template_refuses_is_named_with_file_and_line(
    project: Path, name: str, turns: list[Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as error:
        check_tokenizer(chats(project, name, TALK, turns))
    assert error.value.key == "stages.0.data"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.content }", "chat_template.jinja: the chat template is broken"),
        (
            "{% for m in messages %}{{ m.role }}{% endfor %}",
            "jinja: .*leaves out what the assistant says",
        ),
    ],
)
def test_a_broken_template_names_its_file(project: Path, template: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_tokenizer(chats(project, "chatml", TALK, template=template))


def test_documents_that_leave_nothing_to_learn_are_told(project: Path) -> None:
    with pytest.raises(ConfigurationError, match="none of its 1 documents leaves anything to learn"):
        check_tokenizer(chats(project, "chatml", [TALK[0], {**TALK[1], "weight": 0}]))


def test_a_damaged_tokenizer_is_one_sentence(project: Path) -> None:
    loaded = chats(project, "chatml", TALK)
    for damaged in ("{}", '{"version": "1.0", "model": {"type": "Unheard"}}'):
        (project / "model" / "tokenizer.json").write_text(damaged)
        with pytest.raises(ConfigurationError, match=r"the tokenizer in .* cannot be loaded"):
            check_tokenizer(loaded)


@pytest.mark.parametrize(
    ("config", "eos", "expected"),
    [
        ("<|endoftext|>", "<|im_end|>", "with the token that config.json names as BOS, `<|endoftext|>`"),
        (None, "<|endoftext|>", "with its end-of-text token `<|endoftext|>`"),
        (None, "<|im_end|>", None),
        ("a", "<|im_end|>", None),
    ],
)
def test_samples_never_begin_with_the_end_of_a_turn(
    project: Path, config: str | None, eos: str, expected: str | None
) -> None:
    loaded = chats(project, "chatml", TALK, mitigation=[{"type": "ewc", "estimate_on": "context_free"}])
    file = project / "model" / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"eos_token": eos}
    file.write_text(json.dumps({key: value for key, value in settings.items() if key != "bos_token"}))
    file = project / "model" / "config.json"
    number = chat_tokenizer("chatml").convert_tokens_to_ids(config) if config else None
    file.write_text(json.dumps(json.loads(file.read_text()) | {"text_config": {"bos_token_id": number}}))
    if expected is None:
        with pytest.raises(ConfigurationError, match=r"mitigation.0.start: .*`<\|im_end\|>` ends a turn; use `start"):
            check_tokenizer(loaded)
    else:
        assert check_tokenizer(loaded) == [f"the tokenizer has no BOS: samples start {expected}"]
