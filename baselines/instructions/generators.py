"""The members of the committee: what is configured of them, and what local models reply."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from continual.api import (
    ConfigurationError,
    Context,
    ModelRef,
    SampleRequest,
    StageView,
    Strict,
    Version,
    chat_template,
    load_tokenizer,
)

SELF = "self"


class Generator(Strict):
    """A model that answers and judges: on this cluster, or behind an OpenAI-compatible endpoint."""

    type: Literal["local", "openai"] = Field(description="local: run by `generate.engine`; openai: an endpoint")
    source: str | None = Field(
        None, description="local: folder or hub id; `self`: the model that made the instructions"
    )
    url: str | None = Field(None, description="openai: the base URL of the endpoint, e.g. http://host:8000/v1")
    model: str | None = Field(None, description="openai: what the endpoint calls the model")
    api_key_env: str | None = Field(None, description="openai: environment variable with the key; null: no key")
    concurrency: int = Field(8, ge=1, description="openai: requests at one time")
    retries: int = Field(6, ge=0, description="openai: further tries of a request, 0.5 to 8 seconds apart")
    timeout: float = Field(300.0, gt=0, description="openai: seconds until a try counts as lost")
    version: Version = Field(
        None,
        exclude_if=lambda given: given is None,
        description="openai: yours: change it when the endpoint serves another model under the same name, as its "
        "replies are reused",
    )

    @model_validator(mode="after")
    def _check(self) -> "Generator":
        if self.type == "local" and not self.source:
            raise ValueError("a local generator needs `source`; write a model folder, a hub id or `self`")
        if self.type == "openai" and not (self.model and (self.url or "").startswith(("http://", "https://"))):
            raise ValueError("an openai generator needs `model` and `url`; the URL is e.g. http://host:8000/v1")
        if self.type == "local" and self.version is not None:
            raise ValueError("a local generator is known by its files; leave `version` out")
        return self

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key}: {value}" for key, value in self.model_dump(exclude_defaults=True).items()) + "}"

    @property
    def place(self) -> list[str]:
        """What tells one generator from another."""
        return [self.type, str(self.source)] if self.type == "local" else [str(self.url), str(self.model)]

    @property
    def served(self) -> list[Any]:
        """What the replies of an endpoint are known by."""
        return self.place if self.version is None else [*self.place, self.version]

    @property
    def title(self) -> str:
        """What the terminal calls it."""
        return str(self.source).rstrip("/").rpartition("/")[2] if self.type == "local" else str(self.model)

    def check(self, view: StageView, tokens: int) -> str | None:
        """Return why it cannot work, in one sentence, or None; its context has to hold at least `tokens`."""
        if self.type == "openai":
            if self.api_key_env and not os.environ.get(self.api_key_env):
                return f"the environment variable {self.api_key_env} with the key of {self.url} is not set; export it"
            return None
        try:
            facts = view.facts(None if self.source == SELF else self.source)
        except ConfigurationError as error:
            return f"{error.problem}; {error.fix}"
        if facts.chat_template is False:
            return f"the tokenizer of `{self.source}` has no chat template; use a model that was made to chat"
        if facts.positions is not None and facts.positions < tokens:
            return f"`{self.source}` has {facts.positions} positions for {tokens} tokens; lower the token options"
        if facts.cannot_sample:
            return f"`{self.source}` cannot be sampled: {facts.cannot_sample}; use another model"
        return None


@dataclass(frozen=True)
class Ask:
    """How replies are asked for: `samples` to each text, of at most `tokens` tokens; `title` is for the terminal."""

    samples: int
    tokens: int
    temperature: float
    top_p: float
    seed: int
    title: str


@dataclass(frozen=True)
class Reply:
    """`finished`: whether the model came to an end by itself, within the tokens that it had."""

    text: str
    finished: bool


Replies = dict[int, Reply]
"""Replies by number: reply i is to text i mod len(texts). Those are missing that failed or did not fit the model."""


def sample_replies(
    ctx: Context, model: ModelRef, tokenizer: Any, prompts: list[list[int]], ask: Ask
) -> tuple[Replies, dict[str, int]]:
    """Return what a local model says after each prompt, and the samples used by hash of their artefact."""
    request = SampleRequest(
        model,
        count=ask.samples * len(prompts),
        start="prompts",
        prompts=prompts,
        new_tokens=ask.tokens,
        temperature=ask.temperature,
        top_p=ask.top_p,
        seed=ask.seed,
    )
    samples = ctx.generate(request, ask.title)
    stop = set(samples.manifest()["settings"]["stop"])
    replies = {}
    for table in samples.tables():
        for number, tokens in zip(table["number"].to_pylist(), table["tokens"].to_pylist(), strict=True):
            if number >= (request.count or 0):
                continue  # the set may hold more
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            replies[number] = Reply(text, finished=bool(tokens) and tokens[-1] in stop)
    return replies, {samples.hash: request.count or 0}


def ask_local(ctx: Context, model: ModelRef, texts: list[str], ask: Ask) -> tuple[Replies, dict[str, int]]:
    """Return what a local model says to each text as a user's only message, through its tokenizer and chat template.

    Return also the samples used by hash of their artefact; none if no text fits the model.
    """
    tokenizer = load_tokenizer(model.path)
    prompts = [chat_prompt(tokenizer, text) for text in texts]
    positions = ctx.view.facts(model.path).positions
    fitting = [n for n, prompt in enumerate(prompts) if positions is None or len(prompt) + ask.tokens <= positions]
    if not fitting:
        return {}, {}
    replies, samples = sample_replies(ctx, model, tokenizer, [prompts[number] for number in fitting], ask)
    numbers = {n: fitting[n % len(fitting)] + len(texts) * (n // len(fitting)) for n in replies}
    return {numbers[n]: reply for n, reply in replies.items()}, samples


def chat_prompt(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a conversation in which a user has said `text` and the assistant is to speak."""
    template = chat_template(tokenizer)
    rendered = template.render(template.turns([{"role": "user", "content": text}]), prompt=True)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])
