"""A chat template that loops without an end is refused before a run, and soon."""

import copy
import sys
import time

import pytest

from continual.errors import ConfigurationError
from continual.errors.budget import limited
from continual.models.template import ChatTemplate, chat_template
from continual.preflight.check_tokenizer import check_template
from tests.kits.conversations import chat_tokenizer

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
OUTPUT = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"
CALLS = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ONE_DOCUMENT = TURNS + "{% if messages|length > 3 %}" + LOOPS + "{% endif %}"
SAID = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer"}]


def template(text: str) -> ChatTemplate:
    made = copy.deepcopy(chat_tokenizer("chatml"))  # other tests share it
    made.chat_template = text
    return chat_template(made)


@pytest.mark.parametrize(
    "text", [LOOPS, OUTPUT, CALLS, TURNS + LOOPS, "{% generation %}" + LOOPS + "{% endgeneration %}"]
)
def test_a_template_that_does_not_end_is_refused(text: str) -> None:
    begun, tracer = time.process_time(), sys.gettrace()
    with (
        limited(1 << 30),
        pytest.raises(ConfigurationError, match=r"the chat template does not end .*; mend its loops"),
    ):
        check_template("model.source", template(text).tokenizer, None)
    assert time.process_time() - begun < 3
    assert sys.gettrace() is tracer


def test_a_template_that_does_not_end_with_one_document_is_refused() -> None:
    made = template(ONE_DOCUMENT)
    with limited(1 << 30):
        assert made.render(SAID).count("im_end") == 2
        begun = time.process_time()
        with pytest.raises(ConfigurationError, match="does not end"):
            made.render([*SAID, *SAID])
        with pytest.raises(ConfigurationError, match="does not end"):
            made.render_marked([*SAID, *SAID], None) or made.render([*SAID, *SAID])
    assert time.process_time() - begun < 3


def test_many_slow_conversations_end_together() -> None:
    made = template("{% for a in range(250) %}{% for b in range(250) %}{% endfor %}{% endfor %}" + TURNS)
    begun = time.process_time()
    with limited(1 << 26), pytest.raises(ConfigurationError, match="its conversations take too long"):
        for _ in range(100):
            made.render(SAID)
    assert time.process_time() - begun < 3


def test_a_run_and_a_usual_template_are_not_ended() -> None:
    made = template("{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}" + TURNS)
    assert made.render(SAID).count("im_end") == 2
    usual = chat_template(chat_tokenizer("llama3.1-tools"))
    with limited(1 << 20):
        plain = [usual.render(SAID * turns, prompt=True) for turns in (1, 100)]
    assert plain == [usual.render(SAID * turns, prompt=True) for turns in (1, 100)]
