"""What is learned of a document, and what is refused of it, is decided in one place."""

import datetime
import json
from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from pydantic import ValidationError

from continual.contract.columns import EmptyCell
from continual.contract.example import Example
from continual.contract.reading import read_part
from continual.data.sources.jsonl import JsonlSource
from continual.data.sources.python import PythonSource
from continual.errors import ConfigurationError

TURNS = [{"role": "user", "content": "mu"}, {"role": "assistant", "content": "ma"}]


def learned(document: dict[str, Any], **options: Any) -> Example:
    return JsonlSource(path="x.jsonl", **options).example(document)


def refusal(document: dict[str, Any], **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        learned(document, **options)
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"), (["x", "y"], "a list"), ({}, "a mapping"), (3, "a number"), (0.5, "a number"),
        (True, "a truth value"), (float("nan"), "NaN"), (float("inf"), "an infinite number"), (b"x", "bytes"),
        (datetime.date(2026, 1, 1), "a date"), (datetime.datetime(2026, 1, 1), "a datetime"),
        (Decimal("1.5"), "a number"),
        (np.int64(3), "a number"), (np.float32("nan"), "NaN"), (np.bool_(True), "a truth value"),
        (np.array(["x"]), "a list"), (("x",), "a list"), (EmptyCell(), "an empty cell"), (object(), "an object"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [{"text": "a"}, {"prompt": "q", "completion": "a"}])
def test_what_is_not_text_is_refused_in_a_column_that_is_named_directly(
    value: Any, kind: str, options: dict[str, str]
) -> None:
    error = refusal({"q": "x", "a": value}, **options)
    assert error.key == ("text" if "text" in options else "completion")
    assert error.problem == f"`a` holds {kind}, not text"
    assert "name a column with text" in error.fix
    assert (f'`{error.key}: "{{a}}"`' in error.fix) == (kind == "a number")


def test_text_is_taken_as_it_is() -> None:
    assert learned({"a": " x\n"}, text="a") == Example("text", text=" x\n")
    made = learned({"a": np.str_("x")}, text="a")
    assert type(made.text) is str


@pytest.mark.parametrize("written", ["\udcff", "a\ud800b"])
def test_text_that_cannot_be_utf_8_is_refused(written: str) -> None:
    assert "not UTF-8 text" in refusal({"a": written}, text="a").problem
    assert "not UTF-8 text" in refusal({"a": written}, text="{a}").problem
    assert "not UTF-8" in refusal({"m": [{"role": "user", "content": written}]}, messages="m").problem


def test_a_missing_column_is_refused_with_those_that_are_there() -> None:
    error = refusal({"question": "a", "answer": "b"}, prompt="question", completion="anser")
    assert (error.key, error.problem) == ("completion", "no field `anser`")
    assert error.fix == "did you mean `answer`? it has answer, question"
    assert "no fields at all" in refusal({}, text="a").fix


def test_a_message_is_one_line_that_can_be_written_whatever_the_file_holds() -> None:
    for error in (
        refusal({"caf\udce9\nnames": "x", "y" * 1000: "x"}, text="a"),
        refusal({"m": [{"role": "caf\udce9\n", "content": "x"}]}, messages="m"),
        refusal({"m": [{"r\udce9\nle": "x"}]}, messages="m"),
    ):
        str(error).encode()
        assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{instruction}\n\n{input}", "Add.\n\n1 2"),
        ("{instruction}", "Add."),
        ("{{{instruction}}}", "{Add.}"),
        ("### {instruction} ###", "### Add. ###"),
        ("{n} of {share} {big} {Best Answer}", "3 of 0.5 12 yes"),
    ],
)
def test_a_template_joins_columns_of_text_and_numbers(written: str, expected: str) -> None:
    document = {"instruction": "Add.", "input": "1 2", "n": 3, "share": 0.5, "big": np.int64(12), "Best Answer": "yes"}
    assert learned({**document, "o": "3"}, prompt=written, completion="o").prompt == expected
    assert learned(document, text=written).text == expected


def test_an_empty_cell_is_no_text_in_a_template() -> None:
    assert learned({"a": "x", "b": EmptyCell()}, text="{a}-{b}").text == "x-"


@pytest.mark.parametrize("value", [None, ["x"], {"x": 1}, True, float("nan"), b"x"])
def test_a_template_refuses_what_is_neither_text_nor_a_number(value: Any) -> None:
    error = refusal({"a": "x", "b": value}, text="{a} {b}")
    assert error.key == "text"
    assert "`b` holds" in error.problem


@pytest.mark.parametrize("written", ["{a", "a}", "{}", "{a!r}", "{a:>3}", "{{a}}"])
def test_a_template_with_other_braces_is_refused_before_a_document_is_read(written: str) -> None:
    with pytest.raises(ValidationError, match="template"):
        JsonlSource(path="x.jsonl", text=written)


@pytest.mark.parametrize(
    ("options", "document", "kind"),
    [
        ({}, {"text": "a"}, "text"),
        ({}, {"prompt": "a", "completion": "b", "text": "c"}, "prompt"),
        ({}, {"messages": TURNS, "prompt": "a"}, "messages"),
        ({"text": "text"}, {"text": "a", "prompt": "b", "completion": "c"}, "text"),
        ({"text": "text"}, {"text": "a", "messages": TURNS}, "text"),
        ({"prompt": "q", "completion": "a"}, {"q": "a", "a": "b", "messages": TURNS}, "prompt"),
        ({"messages": "m"}, {"m": TURNS, "text": "a"}, "messages"),
    ],
)
def test_an_option_decides_before_the_document_does(
    options: dict[str, str], document: dict[str, Any], kind: str
) -> None:
    assert PythonSource(function="module:function", **options).example(document).kind == kind


def test_a_function_is_named_where_no_option_is() -> None:
    with pytest.raises(ConfigurationError) as raised:
        PythonSource(function="module:function").example({"txt": "a"})
    assert raised.value.key == "function"


def test_turns_of_every_form_become_those_of_chat_templates() -> None:
    shared = [{"from": "human", "value": "mu"}, {"from": "gpt", "value": "ma"}]
    for form in (TURNS, shared, json.dumps(TURNS), json.dumps(shared), np.array(TURNS), tuple(TURNS)):
        assert learned({"m": form}, messages="m") == Example("messages", messages=TURNS)
    named = {
        "system": "system",
        "tool": "tool",
        "function": "tool",
        "observation": "tool",
        "Human": "user",
        "model": "assistant",
    }
    for written, role in named.items():
        turn = {"from": written, "value": "x"}
        assert learned({"m": [turn]}, messages="m").messages == [{"role": role, "content": "x"}]


def test_the_call_of_a_tool_in_sharegpt_becomes_one_of_chat_templates() -> None:
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    [turn] = learned({"m": [{"from": "function_call", "value": json.dumps(call)}]}, messages="m").messages
    assert turn == {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}


def test_other_keys_of_a_turn_stay_and_what_no_template_reads_does_not() -> None:
    calls = [{"type": "function", "function": {"name": "f", "arguments": '{"a": null}'}}]
    turn = {"role": "assistant", "content": None, "tool_calls": calls, "weight": np.int64(0), "name": None}
    found = learned({"m": [{**turn, "when": datetime.datetime(2026, 1, 1)}]}, messages="m").messages
    assert found == [{"role": "assistant", "content": None, "tool_calls": calls, "weight": 0}]
    json.dumps(found)


def test_parts_of_text_stay_parts_and_others_are_refused() -> None:
    parts = [{"type": "text", "text": "hi"}]
    assert learned({"m": [{"role": "user", "content": parts}]}, messages="m").messages[0]["content"] == parts
    assert learned({"m": [{"role": "user", "content": ["hi"]}]}, messages="m").messages[0]["content"] == parts
    for part, words in (
        ({"type": "image_url", "image_url": {}}, "part that is not text (`image_url`)"),
        ({"type": "image"}, "part that is not text (`image`)"),
        (5, "part that is not text (`a number`)"),
        ({"type": "text"}, "part of `type: text` that holds null, not text"),
        ({"type": "text", "text": {"a": 1}}, "part of `type: text` that holds a mapping, not text"),
    ):
        assert words in refusal({"m": [{"role": "user", "content": [part]}]}, messages="m").problem


def calling(arguments: Any, **keys: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "book", "arguments": arguments}}
    return {"m": [TURNS[0], {"role": "assistant", "content": "", "tool_calls": [call], **keys}]}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (datetime.datetime(2026, 1, 1), "a datetime"), (datetime.date(2026, 1, 1), "a date"),
        (Decimal("9.99"), "a Decimal"), (b"x", "bytes"), ({1}, "a set"), (float("nan"), "NaN"), (object(), "an object"),
        (np.datetime64("2026-01-01"), "a date"), ("\ud83d", "text that is not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_json_in_a_call_a_thought_or_a_tool_is_refused_and_never_left_out(value: Any, kind: str) -> None:
    place = "tool_calls[0].function.arguments.trip[1].when"
    error = refusal(calling({"trip": [1, {"when": value}]}), messages="m")
    assert error.problem == f"turn 2 of `m` holds {kind} in `{place}`"
    for key in ("reasoning_content", "thinking", "reasoning", "weight", "name"):
        problem = refusal(calling({}, **{key: value}), messages="m").problem
        assert problem == f"turn 2 of `m` holds {kind} in `{key}`"
    tools = [{"name": "f"}, {"name": "g", "parameters": {"default": value}}]
    problem = refusal({"m": TURNS, "tools": tools}, messages="m").problem
    assert problem == f"`tools` holds {kind} in `[1].parameters.default`"
    older = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": {"when": value}}}
    problem = refusal({"m": [older]}, messages="m").problem
    assert problem == f"turn 1 of `m` holds {kind} in `function_call.arguments.when`"


def test_lone_surrogates_are_refused_wherever_they_stand() -> None:
    for document in (
        calling('{"a": "\\ud83d"}'),
        calling({"\udcff": 1}),
        calling({}, channel="a\ud800"),
        {"m": TURNS, "tools": [{"name": "\ud83d"}]},
        {"m": [{"from": "function_call", "value": '{"name": "f", "arguments": {"a": "\\ud83d"}}'}]},
    ):
        error = refusal(document, messages="m")
        assert "not UTF-8" in error.problem
        str(error).encode()
    whole = calling('{"a": "\\ud83d\\ude00"}')
    assert learned(whole, messages="m").messages == whole["m"]


@pytest.mark.parametrize("arguments", ['{"city":  "Oslo"}', {"city": "Oslo"}, "", "{broken"])
def test_the_earlier_form_of_a_call_becomes_the_one_of_chat_templates(arguments: Any) -> None:
    call = {"name": "weather", "arguments": arguments}
    expected = {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]}
    for content in (None, "", "Let me see."):
        turn = {"role": "assistant", "content": content, "function_call": call, "tool_calls": None}
        assert learned({"m": [turn]}, messages="m").messages == [{**expected, "content": content}]
    [turn] = learned({"m": [{"role": "assistant", "function_call": call}]}, messages="m").messages
    assert turn == {**expected, "content": None}
    both = {"role": "assistant", "content": "", "function_call": call, "tool_calls": expected["tool_calls"]}
    assert "both `tool_calls` and `function_call`" in refusal({"m": [both]}, messages="m").problem


def test_calls_may_be_json_text_and_other_calls_are_refused() -> None:
    calls = calling({"city": "Oslo"})["m"][1]["tool_calls"]
    turn = {"role": "assistant", "content": None, "tool_calls": json.dumps(calls)}
    assert learned({"m": [turn]}, messages="m").messages[0]["tool_calls"] == calls
    for value, kind in (("call it", "text"), ({"name": "f"}, "a mapping"), (5, "a number"), (["f"], "a list")):
        problem = refusal({"m": [{"role": "assistant", "tool_calls": value}]}, messages="m").problem
        assert problem == f"turn 1 of `m` has {kind} as `tool_calls`, not a list of calls"


def test_a_value_that_nobody_thought_of_is_a_fault_of_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    made = JsonlSource(path="x.jsonl", text="a")
    for error in (ValueError("odd"), TypeError("odd"), OverflowError("odd"), RecursionError("odd")):
        monkeypatch.setattr(JsonlSource, "example", Mock(side_effect=[error, Example("text", text="x")]))
        monkeypatch.setattr(JsonlSource, "read", lambda *_: iter([("line 1", {}), ("line 2", {})]))
        bad, good = read_part(made, "", made.selection())
        assert bad is not None
        assert "line 1: the document cannot be used" in str(bad.problem)
        assert good is not None
        assert good.problem is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("hello", "holds text, not a list of turns"),
        (None, "holds null"),
        ([None], "turn 1 of `m` is null"),
        (["hi"], "turn 1 of `m` is text"),
        ([{"role": "user"}], "no `role` and `content` (its keys: role)"),
        ([{"content": "x"}], "no `role` and `content`"),
        ([*TURNS, {"role": "narrator", "content": "x"}], "turn 3 of `m` has the role `narrator`"),
        ([{"role": None, "content": "x"}], "the role null"),
        ([{"role": "user", "content": None}], "turn 1 of `m` has null as content"),
        ([{"role": "user", "content": 3}], "a number as content"),
        ([{"from": "function_call", "value": "call it"}], "calls a tool, but its content is not JSON"),
        ("[broken", "holds text"),
    ],
)
def test_what_is_no_conversation_is_refused(value: Any, words: str) -> None:
    error = refusal({"m": value}, messages="m")
    assert error.key == "messages"
    assert words in error.problem


def test_turns_of_prompt_and_completion_are_one_conversation_that_is_learned_from_the_completion_on() -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    made = learned({"p": before, "c": TURNS[1:]}, prompt="p", completion="c")
    assert made == Example("messages", messages=before + TURNS[1:], learned_from=3)
    assert "holds a list, not text" in refusal({"p": before, "c": "x"}, prompt="p", completion="c").problem
    written = {"p": json.dumps(before), "c": f" {json.dumps(TURNS[1:])}"}
    assert learned(written, prompt="p", completion="c") == made
    shared = {"p": '[{"from": "human", "value": "a"}]', "c": TURNS[1:]}
    assert learned(shared, prompt="p", completion="c").learned_from == 1


@pytest.mark.parametrize("written", ['[{"city": "Oslo"}]', "[1, 2]", "[]", '[{"role": "user", "content": ""}, 1]'])
def test_json_text_that_is_no_conversation_is_text(written: str) -> None:
    made = learned({"p": written, "c": written}, prompt="p", completion="c")
    assert made == Example("prompt", prompt=written, completion=written)


def test_tools_are_taken_from_their_column() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for form in (tools, json.dumps(tools)):
        assert learned({"m": TURNS, "tools": form}, messages="m").tools == tools
        assert learned({"m": TURNS, "functions": form}, messages="m", tools="functions").tools == tools
        both = learned({"p": TURNS[:1], "c": TURNS[1:], "tools": form}, prompt="p", completion="c")
        assert both.tools == tools
    nothing: list[Any] = [None, "", "[]", []]
    for none in nothing:
        assert learned({"m": TURNS, "tools": none}, messages="m").tools is None
    assert "no list of tools" in refusal({"m": TURNS, "tools": "f"}, messages="m").problem
    assert refusal({"m": TURNS}, messages="m", tools="functions").key == "tools"


def test_columns_that_nobody_asked_for_may_hold_anything() -> None:
    document = {"a": "x", "when": datetime.datetime(2026, 1, 1), "image": b"\x89PNG", "n": float("nan")}
    json.dumps(learned(document, text="a").as_json())
