"""A tokenizer's chat template: the only place that renders conversations, and what it does to an exchange."""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

from continual.errors import ConfigurationError, one_line
from continual.models.bounded import Endless, ended

Turn = dict[str, Any]
Spans = list[tuple[int, int]]

INSTRUCTED, ASKED, ANSWERED = "\u241finstructed\u241f", "\u241fasked\u241f", "\u241fanswered\u241f"
"""What is said in a probe: texts that no template writes by itself."""
GIVEN = {"marked": "given"}
CALLED = {"type": "function", "function": {"name": "called", "description": "", "parameters": {"type": "object"}}}
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields of a turn that templates know as its reasoning."""
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatTemplate:
    """The chat template of a tokenizer. What is not known from its text is found by rendering marked texts, once."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def render(self, turns: Iterable[Turn], tools: list[Any] | None = None, prompt: bool = False) -> str:
        """Return a conversation as text; with `prompt`, up to where the assistant is to speak.

        Raises:
            ConfigurationError: The template refuses the conversation, or there is no template.
        """
        options = {**({"tools": tools} if tools else {}), **({"add_generation_prompt": True} if prompt else {})}
        try:
            with ended():
                return str(self.tokenizer.apply_chat_template(list(turns), tokenize=False, **options))
        except Exception as error:  # jinja's own, raise_exception in the template, TypeError, KeyError, ...
            raise self._refused(error) from error

    def render_marked(self, turns: list[Turn], tools: list[Any] | None) -> tuple[str, Spans] | None:
        """Return a conversation as text and what the template's `{% generation %}` blocks wrote; None without them."""
        if not self._has_marks:
            return None
        # apply_chat_template gives the marked tokens, not the characters.
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            with ended():
                result: Any = render_jinja_template(
                    conversations=[
                        [{key: value for key, value in turn.items() if value is not None} for turn in turns]
                    ],
                    tools=tools or None,
                    chat_template=self.tokenizer.get_chat_template(None, tools or None),
                    return_assistant_tokens_mask=True,
                    **self.tokenizer.special_tokens_map,
                )
        except Exception as error:
            raise self._refused(error) from error
        [text], [spans] = result
        return text, [(int(first), int(last)) for first, last in spans]

    def turns(self, messages: Sequence[Turn]) -> list[Turn]:
        """Return turns as the template wants them: content as text or as parts, arguments as mapping or as JSON text.

        Raises:
            ConfigurationError: A turn holds something that is not text, or arguments that are not JSON.
        """
        turns = []
        for number, message in enumerate(messages, 1):
            turn = {key: value for key, value in message.items() if key != "weight"}
            if isinstance(turn.get("content"), list | tuple):
                texts = _texts(turn["content"], number)
                turn["content"] = _parts(*texts) if self._wants_parts else "".join(texts)
            elif isinstance(turn.get("content"), str) and self._wants_parts:
                turn["content"] = _parts(turn["content"])
            for field in REASONING:
                if turn.get(field) is not None and not isinstance(turn[field], str):
                    turn[field] = _reasoning(turn[field], number)
            if turn.get("tool_calls"):
                turn["tool_calls"] = [self._call(call, number) for call in turn["tool_calls"]]
            turns.append(turn)
        return turns

    @cached_property
    def opening(self) -> str:
        """What the template writes before every answer and does not give as the beginning of one: an empty
        `<think>` block, a channel's name. "" if there is nothing but whitespace."""
        prompt, before = self._prompt, self._exchanged[0]
        rest = before[common(before, prompt) :]
        return rest if rest.strip() else ""

    @cached_property
    def opened(self) -> str:
        """What the generation prompt begins of an answer and finished answers lack: `<think>` of some reasoning
        families. "" if there is nothing but whitespace."""
        prompt, before = self._prompt, self._exchanged[0]
        rest = prompt[len(before) :] if prompt.startswith(before) else ""
        return rest if rest.strip() else ""

    def behind_header(self, text: str, first: int) -> int:
        """Return where a marked answer begins: behind the generation prompt, if the mark holds a part of it."""
        header = self._prompt.rpartition(ASKED)[2] if ASKED in self._prompt else ""
        ends = range(first + 1, first + len(header) + 1)
        return next((end for end in ends if text.endswith(header, 0, end)), first)

    @cached_property
    def closing(self) -> str:
        """What the template writes after an answer that is the last turn."""
        return self._exchanged[1]

    @cached_property
    def end(self) -> str:
        """The beginning of `closing` that ends the turn: up to its first special token, or all of it but whitespace
        at its end if there is no such token; "" if answers end with nothing."""
        found = [(self.closing.find(token), -len(token)) for token in self.specials if token in self.closing]
        if not found:
            return self.closing.rstrip()
        place, length = min(found)
        return self.closing[: place - length]

    @cached_property
    def end_tokens(self) -> tuple[str, ...]:
        """The special tokens that end an answer: of plain words, and of a call of a tool where it is another."""
        ends = [self.last_special(self.end)]
        called = self._try(self._calling(GIVEN)) or self._try(self._calling(json.dumps(GIVEN))) or ""
        if "given" in called:
            ends.append(self.last_special(called.rstrip()))
        # A tokenizer may have a template of its own for conversations with tools.
        if isinstance(getattr(self.tokenizer, "chat_template", None), dict):
            for turns in (self._exchange, self._calling(GIVEN), self._calling(json.dumps(GIVEN))):
                text = self._try(turns, [CALLED]) or ""
                if not text.endswith(self.closing):
                    ends.append(self.last_special(text.rstrip()))
        return tuple(dict.fromkeys(token for token in ends if token))

    @property
    def end_text(self) -> str:
        """The words that end an answer where no special token does."""
        return "" if self.last_special(self.end) else self.end.strip()

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """The texts of all special and added tokens that are more than whitespace, longest first."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        texts = {str(token) for token in added} | {str(getattr(self.tokenizer, "eos_token", None) or "")}
        return tuple(sorted((text for text in texts if text.strip()), key=len, reverse=True))

    def last_special(self, text: str) -> str:
        """Return the special token with which a text ends, or ""."""
        return next((token for token in self.specials if text.endswith(token)), "")

    @cached_property
    def _exchange(self) -> list[Turn]:
        """An exchange, behind a system's turn where the template insists on one."""
        said = [self._turn("user", ASKED), self._turn("assistant", ANSWERED)]
        instructed = [self._turn("system", INSTRUCTED), *said]
        return instructed if self._try(said) is None and self._try(instructed) is not None else said

    def _turn(self, role: str, text: str) -> Turn:
        return {"role": role, "content": _parts(text) if self._wants_parts else text}

    @cached_property
    def _prompt(self) -> str:
        """What the template writes before it lets the assistant answer the exchange."""
        return self.render(self._exchange[:-1], prompt=True)

    @cached_property
    def _exchanged(self) -> tuple[str, str]:
        """What the template writes before and after the answer of an exchange."""
        before, found, after = self.render(self._exchange).rpartition(ANSWERED)
        if not found:
            raise ConfigurationError("", "the chat template leaves out what the assistant says", "use another one")
        return before, after

    @cached_property
    def _wants_parts(self) -> bool:
        for roles in (("user",), ("system", "user")):
            for content, wants in ((ASKED, False), (_parts(ASKED), True)):
                if ASKED in (self._try([{"role": role, "content": content} for role in roles]) or ""):
                    return wants
        return False

    @cached_property
    def _wants_json(self) -> bool:
        """Whether arguments of a call are to be JSON text: the template would print a mapping as Python does."""
        mapped = self._try(self._calling(GIVEN)) or ""
        if "marked" in mapped and "given" in mapped and "'marked'" not in mapped:
            return False
        return json.dumps(GIVEN) in (self._try(self._calling(json.dumps(GIVEN))) or "")

    @cached_property
    def _has_marks(self) -> bool:
        texts = getattr(self.tokenizer, "chat_template", None)
        return any(MARKS.search(text) for text in (texts.values() if isinstance(texts, dict) else [str(texts)]))

    def _calling(self, arguments: Any) -> list[Turn]:
        # Some templates insist on an id of nine letters and digits.
        call = {"type": "function", "id": "call00001", "function": {"name": "called", "arguments": arguments}}
        content: Any = _parts("") if self._wants_parts else ""
        return [*self._exchange[:-1], {"role": "assistant", "content": content, "tool_calls": [call]}]

    def _call(self, call: Any, number: int) -> Any:
        """Return one of a turn's `tool_calls` with its arguments in the form that the template wants."""
        if not isinstance(call, dict):
            raise ConfigurationError(
                "", f"turn {number} has a tool call that is not a mapping", "write {function: ...}"
            )
        if isinstance(call.get("function"), dict):
            return {**call, "function": self._call(call["function"], number)}
        arguments = call.get("arguments")
        if isinstance(arguments, str):
            try:
                parsed = json.loads(arguments or "{}")
            except ValueError as error:
                problem = (
                    f"turn {number} calls `{call.get('name')}` with arguments that are not JSON ({one_line(error)})"
                )
                raise ConfigurationError("", problem, "write a mapping, or JSON text") from error
            arguments = (arguments or "{}") if self._wants_json else parsed
        elif arguments is not None and self._wants_json:
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {**call, **({} if arguments is None else {"arguments": arguments})}

    def _try(self, turns: list[Turn], tools: list[Any] | None = None) -> str | None:
        try:
            return self.render(turns, tools)
        except ConfigurationError as error:
            if isinstance(error.__cause__, Endless):
                raise  # another question would not end either
            return None

    def _refused(self, error: Exception) -> ConfigurationError:
        if not getattr(self.tokenizer, "chat_template", None):
            fix = "add one to tokenizer_config.json, or use `prompt` and `completion`"
            return ConfigurationError("", "the tokenizer has no chat template", fix)
        if type(error).__name__ == "TemplateSyntaxError":
            problem = f"the chat template is broken (line {getattr(error, 'lineno', '?')}: {one_line(error)})"
            return ConfigurationError("", problem, "mend it, or copy it again")
        if isinstance(error, Endless):
            return ConfigurationError("", f"the chat template does not end ({error})", "mend its loops")
        return ConfigurationError(
            "",
            f"the chat template refuses the conversation ({one_line(error)})",
            "change the conversation or the template",
        )


def chat_template(tokenizer: Any) -> ChatTemplate:
    """Return the chat template of a tokenizer; what was found out about it is kept until it gets another one."""
    return _template(tokenizer, str(getattr(tokenizer, "chat_template", None)))


@lru_cache(maxsize=8)
def _template(tokenizer: Any, _text: str) -> ChatTemplate:
    return ChatTemplate(tokenizer)


def common(one: str, other: str) -> int:
    """Return the length of the longest common prefix of two texts."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:
        return shortest
    return next(place for place in range(shortest) if one[place] != other[place])


def _parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _texts(parts: Iterable[Any], number: int) -> list[str]:
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = f"a part of type `{part.get('type')}`" if isinstance(part, dict) else f"a {type(part).__name__}"
            raise ConfigurationError("", f"turn {number} holds {kind}, not text", "leave it out, or skip the document")
        texts.append(text)
    return texts


def _reasoning(value: Any, number: int) -> str:
    if isinstance(value, list | tuple):
        return "".join(_texts(value, number))
    problem = f"turn {number} has reasoning that is a {type(value).__name__}, not text"
    raise ConfigurationError("", problem, "write it as text, or leave it out")
