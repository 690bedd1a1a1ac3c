"""A conversation to the texts that are trained on, and which characters of them are learned."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from continual.contract.example import Example
from continual.errors import ConfigurationError
from continual.models.template import ANSWERED, ASKED, REASONING, ChatTemplate, Turn, common


@dataclass(frozen=True)
class Script:
    """A text to train on.

    Attributes:
        text: What the chat template wrote.
        spans: Its characters that are learned: answers up to the token that ends them, in their order.
        ends: Whether the end-of-text token follows, since the template ends no answer.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    ends: bool = False


@dataclass(frozen=True)
class Answer:
    """The conversation up to an answer: its text, where the answer begins and ends, whether a token ends it there."""

    number: int
    prompt: str | None
    text: str
    start: int
    end: int
    ended: bool


def scripts(example: Example, template: ChatTemplate, end_token: bool) -> list[Script]:
    """Return what is trained of a conversation; [] if no turn of it is to be learned.

    One text for the whole conversation where it holds every answer as a model meets it, by the template's own
    `{% generation %}` marks or because the template only appends. Else one text per answer, as a model meets it: with
    earlier turns as the template rewrites them.

    Args:
        example: The conversation.
        template: The tokenizer's chat template.
        end_token: Whether an answer that the template does not end gets the end-of-text token.

    Raises:
        ConfigurationError: The template refuses the conversation, or leaves out a part of it.
    """
    learned = _learned(example)
    if not learned:
        return []
    turns = template.turns(example.messages)
    _instructed(turns, learned, example.tools, template)
    whole = _marked(turns, learned, example.tools, template) if template.end else None
    if whole is None:
        answers = [_answer(turns, number, example.tools, template) for number in learned]
        for answer in answers:
            _holds_its_own(turns, answer, example.tools, template)
        whole = (
            None if end_token and not all(a.ended for a in answers) else _appended(turns, answers, example, template)
        )
        if whole is None:
            return list(_apart(turns, answers, example, end_token))
    told = {number for number, turn in enumerate(turns) if turn.get("role") != "assistant"} | set(learned)
    _nothing_lost(turns, sorted(told), whole.text, example.tools)
    return [whole]


def _learned(example: Example) -> list[int]:
    """Return the numbers of the turns that are learned: the assistant's, unless they have `weight: 0`."""
    numbers = []
    for number, turn in enumerate(example.messages):
        weight, answer = turn.get("weight"), turn.get("role") == "assistant"
        if weight not in (None, 0, 1) or (weight == 1 and not answer):
            problem = f"turn {number + 1} ({turn.get('role')}) has the weight {weight!r}"
            raise ConfigurationError("", problem, "an assistant's turn may have 0 or 1, others 0 only")
        if answer and weight != 0 and number >= example.learned_from:
            numbers.append(number)
    return numbers


def _marked(turns: list[Turn], learned: list[int], tools: Any, template: ChatTemplate) -> Script | None:
    """Return the conversation with the template's own marks as spans; None if they do not hold the answers."""
    rendered = template.render_marked(turns, tools)
    answers = [number for number, turn in enumerate(turns) if turn.get("role") == "assistant"]
    if rendered is None or len(rendered[1]) != len(answers):
        return None
    text, marks = rendered
    spans = []
    for number in learned:
        first, last = marks[answers.index(number)]
        if _first_lost(turns[number], text[first:last]):
            return None
        first = template.behind_header(text, first)
        for given in (template.opening, template.opened):
            if given and text.startswith(given, first):
                first += len(given)
        inside, behind = text[first:last].rstrip(), text[last:]
        if template.last_special(inside) or (template.end_text and inside.endswith(template.end_text)):
            last = first + len(inside)
        elif behind.startswith(template.end):
            last += len(template.end)
        else:
            return None
        if not _is_plain(turns[number], text[first:last], template):
            _holds_no_other(turns, number, text, _marked_again(turns, number, answers, tools, template))
        spans.append((first, last))
    return Script(text, tuple(spans))


def _marked_again(turns: list[Turn], number: int, answers: list[int], tools: Any, template: ChatTemplate) -> str:
    """Return what the template marks for an answer when the other turns have their marks; "" if it refuses them."""
    with suppress(ConfigurationError):  # a template may refuse what a turn says
        text, marks = template.render_marked(_probed(turns, number), tools) or ("", [])
        if len(marks) == len(answers):
            first, last = marks[answers.index(number)]
            return text[first:last]
    return ""


def _answer(turns: list[Turn], number: int, tools: Any, template: ChatTemplate) -> Answer:
    text = template.render(turns[: number + 1], tools)
    try:
        prompt = template.render(turns[:number], tools, prompt=True) if number else None
    except ConfigurationError:  # some templates want a user's turn before they let the assistant speak
        prompt = None
    if prompt is not None and text.startswith(prompt):
        start = len(prompt)
        if template.opening and text.startswith(template.opening, start):
            start += len(template.opening)
    elif prompt is not None and (continued := _continued(turns[number], template)):
        text = prompt + continued + template.closing
        return Answer(number, prompt, text, len(prompt), len(prompt + continued + template.end), bool(template.end))
    else:
        # Where the text begins to depend on what the assistant says.
        content = [{"type": "text", "text": ANSWERED}] if isinstance(turns[number].get("content"), list) else ANSWERED
        other = template.render([*turns[:number], {"role": "assistant", "content": content}], tools)
        start = common(text, other)
    closing, stripped = template.closing, text.rstrip()
    if template.end and text.endswith(closing):
        return Answer(number, prompt, text, start, len(text) - len(closing) + len(template.end), True)
    special = template.last_special(stripped)
    if special and len(stripped) - len(special) >= start:
        return Answer(number, prompt, text, start, len(stripped), True)
    end = len(text) - len(closing) if text.endswith(closing) else len(stripped)
    return Answer(number, prompt, text, start, end, False)


def _holds_its_own(turns: list[Turn], answer: Answer, tools: Any, template: ChatTemplate) -> None:
    """Raise ConfigurationError for an answer whose learned characters hold what another turn says."""
    if _is_plain(turns[answer.number], answer.text[answer.start : answer.end], template):
        return
    try:
        probed = _answer(_probed(turns, answer.number), answer.number, tools, template)
    except ConfigurationError:  # a template may refuse what a turn says
        return
    _holds_no_other(turns, answer.number, answer.text, probed.text[probed.start : probed.end])


def _is_plain(turn: Turn, learned: str, template: ChatTemplate) -> bool:
    """Return whether learned characters are an answer's words and what ends them, but for whitespace."""
    ended = learned.rstrip()
    end = template.last_special(ended) or template.end_text
    return _squeezed(ended.removesuffix(end)) == _squeezed("".join(_leaves(turn.get("content"))))


def _mark(number: int) -> str:
    """Return a character of private use for each turn."""
    return chr(0xE000 + number % 0x1900)


def _probed(turns: list[Turn], number: int) -> list[Turn]:
    """Return a conversation in which every turn but one has its mark around what it says."""
    return [turn if at == number else _with_mark(turn, _mark(at)) for at, turn in enumerate(turns)]


def _with_mark(turn: Turn, mark: str) -> Turn:
    marked: Turn = {field: f"{mark}{turn[field]}{mark}" for field in REASONING if turn.get(field)}
    content = turn.get("content")
    if isinstance(content, str) and content:
        marked["content"] = f"{mark}{content}{mark}"
    elif isinstance(content, list):
        marked["content"] = [{**part, "text": f"{mark}{part['text']}{mark}"} for part in content]
    return {**turn, **marked}


def _holds_no_other(turns: list[Turn], number: int, text: str, probed: str) -> None:
    """Raise ConfigurationError if the learned characters of a probed conversation hold the mark of another turn."""
    for other, turn in enumerate(turns):
        if other != number and _mark(other) in probed and _mark(other) not in text:
            problem = (
                f"the chat template writes words of turn {other + 1} ({turn.get('role')}) into what would be learned "
                f"of turn {number + 1} (assistant)"
            )
            raise ConfigurationError("", problem, "use a template that writes the turns in their order")


def _instructed(turns: list[Turn], learned: list[int], tools: Any, template: ChatTemplate) -> None:
    """Raise ConfigurationError for a system's turn that makes no difference to what the template writes."""
    for number, turn in enumerate(turns):
        if turn.get("role") not in ("system", "developer") or not "".join(_leaves(turn.get("content"))).strip():
            continue
        until = turns[: max(number, learned[0]) + 1]
        probed = [_with_mark(turn, ASKED) if at == number else other for at, other in enumerate(until)]
        same = False
        with suppress(ConfigurationError):
            same = template.render(until, tools) == template.render(probed, tools)
        if same:
            problem = f"the chat template leaves out the words of turn {number + 1} ({turn.get('role')})"
            raise ConfigurationError("", problem, "change the data or the template")


def _continued(turn: Turn, template: ChatTemplate) -> str:
    """Return an answer without its beginning that the generation prompt gives; "" if it does not begin so."""
    texts = list(_leaves(turn.get("content")))
    said, opened = "".join(texts).strip(), template.opened.strip()
    if not opened or not said.startswith(opened) or turn.get("tool_calls") or any(turn.get(f) for f in REASONING):
        return ""
    return said.removeprefix(opened).lstrip()


def _appended(turns: list[Turn], answers: list[Answer], example: Example, template: ChatTemplate) -> Script | None:
    """Return the whole conversation if every answer stands in it, and is asked for, as it is when it is given."""
    text = template.render(turns, example.tools)
    for answer in answers:
        if not text.startswith(answer.prompt or "") or not text.startswith(answer.text[: answer.end]):
            return None
    return Script(text, tuple((answer.start, answer.end) for answer in answers))


def _apart(turns: list[Turn], answers: list[Answer], example: Example, end_token: bool) -> Iterator[Script]:
    """Yield a text for every answer. An earlier answer may be rewritten there: inference sees it so, too."""
    before = -1
    for answer in answers:
        between = range(before + 1, answer.number)
        told = [number for number in between if turns[number].get("role") != "assistant"]
        _nothing_lost(turns, [*told, answer.number], answer.text, example.tools)
        before = answer.number
        if answer.ended or not end_token:
            yield Script(answer.text, ((answer.start, answer.end),))
        else:
            yield Script(answer.text[: answer.end], ((answer.start, answer.end),), ends=True)


def _nothing_lost(turns: list[Turn], told: list[int], text: str, tools: Any) -> None:
    """Raise ConfigurationError for the first of the turns in `told` that a text does not hold, or for the tools."""
    place, squeezed = 0, _squeezed(text)
    for number in told:
        turn = turns[number]
        # Templates may put what the system says somewhere else; all others speak in their order.
        lost, reached = _find(turn, squeezed, 0 if turn.get("role") == "system" else place)
        if lost:
            problem = f"the chat template leaves out {lost} of turn {number + 1} ({turn.get('role')})"
            raise ConfigurationError("", problem, "change the data or the template")
        place = place if turn.get("role") == "system" else reached
    for tool in tools or []:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and _squeezed(name) not in squeezed:
            problem = f"the chat template leaves out the tool `{name}`"
            raise ConfigurationError("", problem, "leave the tools out, or use a template that lists them")


def _first_lost(turn: Turn, text: str) -> str:
    return _find(turn, _squeezed(text), 0)[0]


def _find(turn: Turn, squeezed: str, start: int) -> tuple[str, int]:
    """Return what of a turn a text does not hold from `start` on ("" for nothing), and where the last part ends."""
    reached = start
    for what, part in _said(turn):
        wanted = {
            _squeezed(form) for form in (part, json.dumps(part, ensure_ascii=False)[1:-1], json.dumps(part)[1:-1])
        }
        places = [(place, len(form)) for form in wanted if (place := squeezed.find(form, start)) >= 0]
        if not places:
            shown = part if len(part) <= 40 else f"{part[:37]}..."
            return f"{what} {shown!r}", reached
        reached = max(reached, sum(min(places)))
    return "", reached


def _said(turn: Turn) -> Iterator[tuple[str, str]]:
    """Yield every text of a turn that a model is to see or to write, after what it is."""
    for field in REASONING:
        if isinstance(turn.get(field), str):
            yield "the reasoning", turn[field]
    for text in _leaves(turn.get("content")):
        yield "the words", text
    for call in turn.get("tool_calls") or []:
        function = call.get("function", call)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            with suppress(ValueError):
                arguments = json.loads(arguments)
        yield "the called tool", str(function.get("name", ""))
        for text in _leaves(arguments):
            yield "the argument", text


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "type":
                yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)


def _squeezed(text: str) -> str:
    """Return a text without whitespace, which templates trim and add."""
    return "".join(text.split())
