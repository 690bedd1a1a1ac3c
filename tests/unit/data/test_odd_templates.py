"""Templates that turn conversations around: what is learned is an answer's own words, or the document is refused."""

import copy
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.models.ends import answer_ends
from continual.preflight.check_tokenizer import check_template
from tests.kits.conversations import chat_tokenizer, encode, learned

HEAD = "<|im_start|>{{ m.role }}\n"
TURNS = "{% for m in messages %}" + HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINK = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"


def tokenizer(template: Any) -> Any:
    # A copy: other tests share the tokenizer.
    made = copy.deepcopy(chat_tokenizer("chatml"))
    made.chat_template = template
    return made


def talk(*texts: str, system: str = "") -> dict[str, Any]:
    said = [{"role": "user" if at % 2 == 0 else "assistant", "content": text} for at, text in enumerate(texts)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *said]}


def taught(template: Any, document: dict[str, Any]) -> list[str]:
    chosen = tokenizer(template)
    return [text for piece in encode(document, chosen) for text in learned(piece, chosen)]


@pytest.mark.parametrize("opened", ["<think>\n", "<think>"])
def test_an_answer_continues_what_the_prompt_opens(opened: str) -> None:
    chosen = chat_tokenizer("deepseek-r1")
    [piece] = encode(talk("ask", f"{opened}because\n</think>\n\nyes"), chosen)
    assert str(chosen.decode(piece.ids)).endswith(
        "ask<｜Assistant｜><think>\nbecause\n</think>\n\nyes<｜end▁of▁sentence｜>"
    )
    assert learned(piece, chosen) == ["because\n</think>\n\nyes<｜end▁of▁sentence｜>"]


def test_a_note_says_what_only_the_prompt_opens() -> None:
    assert taught(TURNS + THINK, talk("ask", "yes")) == ["yes<|im_end|>"]
    [note] = check_template("model.source", tokenizer(TURNS + THINK), None)
    assert "ends with '<think>\\n', which finished answers lack" in note
    assert check_template("model.source", tokenizer(TURNS + ASK), None) == []


@pytest.mark.parametrize(
    "template",
    [
        TURNS.replace("in messages", "in messages|reverse") + ASK,
        "Topic: {{ messages[-1].content[:3] }}\n" + TURNS + ASK,
        TURNS.replace(
            "{{ m.content }}", "{{ m.content }}{% if m.role == 'assistant' %} ({{ messages[0].content }}){% endif %}"
        )
        + ASK,
        "{% for m in messages %}" + HEAD + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }} to "
        "{{ messages[0].content }}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
        "{% endfor %}" + ASK,
    ],
    ids=["newest first", "quotes the last message", "repeats the question", "repeats it in its marks"],
)
def test_words_of_another_turn_are_not_learned(template: str) -> None:
    with pytest.raises(ConfigurationError, match=r"words of turn 1 \(user\) into what would be learned of turn 2"):
        taught(template, talk("ask", "yes"))


def test_a_header_within_the_marks_is_context() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>assistant\n{{ m.content }}"
        "<|im_end|>\n{% endgeneration %}{% else %}" + HEAD + "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}" + ASK
    )
    assert taught(template, talk("ask", "yes", "more", "no")) == ["yes<|im_end|>", "no<|im_end|>"]


@pytest.mark.parametrize("fields", [{"reasoning_content": "", "thinking": "why so"}, {"reasoning": ["why ", "so"]}])
def test_every_reasoning_is_looked_for(fields: dict[str, Any]) -> None:
    document = talk("ask", "yes")
    document["messages"][1] |= fields
    with pytest.raises(ConfigurationError, match="leaves out the reasoning 'why so' of turn 2"):
        taught(TURNS + ASK, document)
    [name] = [name for name, value in fields.items() if value]
    kept = TURNS.replace("{{ m.content }}", "{{ m." + name + " or '' }} {{ m.content }}")
    assert taught(kept + ASK, document)[0].split() == ["why", "so", "yes<|im_end|>"]


def test_reasoning_that_is_no_text_is_refused() -> None:
    document = talk("ask", "yes")
    document["messages"][1]["thinking"] = {"why": "so"}
    with pytest.raises(ConfigurationError, match="turn 2 has reasoning that is a dict, not text"):
        taught(TURNS + ASK, document)


@pytest.mark.parametrize("system", ["ask", "user", "yes"])
def test_a_lost_system_turn_is_refused_though_its_words_occur(system: str) -> None:
    dropping = TURNS.replace("in messages", "in messages if m.role != 'system'") + ASK
    with pytest.raises(ConfigurationError, match=r"leaves out the words of turn 1 \(system\)"):
        taught(dropping, talk("ask", "yes", system=system))
    assert taught(TURNS + ASK, talk("ask", "yes", system=system)) == ["yes<|im_end|>"]


def test_a_template_may_insist_on_a_system_turn() -> None:
    insisting = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TURNS + ASK
    assert taught(insisting, talk("ask", "yes", system="Be brief.")) == ["yes<|im_end|>"]
    with pytest.raises(ConfigurationError, match="system first"):
        taught(insisting, talk("ask", "yes"))


def test_ends_of_a_template_for_tools_end_answers() -> None:
    chosen = tokenizer({"default": TURNS + ASK, "tool_use": TURNS.replace("<|im_end|>", "<|endoftext|>") + ASK})
    ends = chosen.convert_ids_to_tokens(list(answer_ends(chosen, chat=True)))
    assert ends == ["<|im_end|>", "<|endoftext|>"]
