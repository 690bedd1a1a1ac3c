"""Models behind OpenAI-compatible endpoints: chat completions, stored shard by shard."""

import os
from collections.abc import Generator as Making
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from baselines.instructions.generators import Ask, Generator, Replies, Reply
from continual.api import ConfigurationError, Context, ContinualError, digest, sample_seed

SHARD = 64
"""Replies per stored shard: what a kill loses at most, beside the requests on their way."""
Made = tuple[Reply | None, int, str]
"""A reply, the tokens it took, and the endpoint's reason where there is no reply."""


def client(generator: Generator) -> Any:
    """Return an `openai.OpenAI` that retries requests that are lost or refused for a time, with growing pauses."""
    import openai

    key = os.environ.get(generator.api_key_env or "", "") or "no key"
    return openai.OpenAI(base_url=generator.url, api_key=key, max_retries=generator.retries, timeout=generator.timeout)


def check_endpoint(generator: Generator) -> None:
    """Ask for one token. Raises ConfigurationError, in one sentence, when the endpoint would not answer requests."""
    import openai

    with client(generator) as connection:
        try:
            _complete(connection, generator, "Hello", {"max_tokens": 1})
        except openai.OpenAIError as error:
            raise ConfigurationError("", *explain(error, generator)) from error


def explain(error: Exception, generator: Generator) -> tuple[str, str]:
    """Return what is wrong with an endpoint, and what to do."""
    import openai

    said = " ".join(str(getattr(error, "message", error)).split())[:200]
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        key = f"the key in {generator.api_key_env}" if generator.api_key_env else "requests without a key"
        return f"{generator.url} refuses {key}", "name the variable that holds a valid key as `api_key_env`"
    if isinstance(error, openai.NotFoundError):
        return f"{generator.url} knows no `{generator.model}` ({said})", "correct `url` (with /v1) or `model`"
    if isinstance(error, openai.APIConnectionError):
        said = " ".join(str(error.__cause__ or error).split())
        return f"{generator.url} cannot be reached ({said})", "start the server or correct `url`"
    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return f"{generator.url} refuses a request to `{generator.model}` ({said})", "choose a model that it serves"
    return f"{generator.url} does not answer ({said})", "try again later: the same command resumes"


def ask_endpoint(ctx: Context, generator: Generator, texts: list[str], ask: Ask) -> Replies:
    """Return what the endpoint says to each text as a user's only message; from the store what was asked before.

    A request that the endpoint calls bad has no reply. Raises ContinualError when more than `generate.max_failed` of
    them are bad, or when the endpoint stops answering.
    """
    count = ask.samples * len(texts)
    how = {"tokens": ask.tokens, "temperature": ask.temperature, "top_p": ask.top_p, "seed": ask.seed}
    inputs = {"replies": generator.served, "texts": digest(texts), "count": count, **how}
    artefact = ctx.store.artefact("replies", inputs)
    with ctx.store.write(artefact, inputs) as writer:
        if writer is not None:
            shards = {n: range(n * SHARD, min(count, (n + 1) * SHARD)) for n in writer.missing(-(-count // SHARD))}
            missing = list(chain.from_iterable(shards.values()))
            with ctx.step(ask.title) as step, closing(_ask(generator, texts, ask, missing)) as answers:
                for shard, numbers in shards.items():
                    replies, tokens, reasons = zip(*islice(answers, len(numbers)), strict=True)
                    failed = replies.count(None)
                    facts = {"replies": len(replies) - failed, "failed": failed, "tokens": sum(tokens)}
                    writer.put(shard, _table(numbers, replies), **facts)
                    failed, most = writer.counts["failed"], ctx.max_failed
                    if failed > most * count:
                        raise ContinualError(
                            f"{generator.url} refused {failed} of {count} requests, more than `generate.max_failed` "
                            f"({most}) allows: {[*filter(None, reasons)][-1]}"
                        )
                    step.update(writer.counts["rows"], count)
            writer.finish()
    rows = (row for table in artefact.tables() for row in table.to_pylist())
    return {row["number"]: Reply(row["text"], row["finished"]) for row in rows if row["text"] is not None}


def _table(numbers: range, replies: Sequence[Reply | None]) -> pa.Table:
    texts = pa.array([reply and reply.text for reply in replies], pa.string())
    finished = pa.array([bool(reply and reply.finished) for reply in replies])
    return pa.table({"number": pa.array(list(numbers), pa.int64()), "text": texts, "finished": finished})


def _ask(generator: Generator, texts: list[str], ask: Ask, numbers: list[int]) -> Making[Made, None, None]:
    """Yield replies in the order of `numbers`, several requests on their way at a time."""
    import openai

    connection, pool = client(generator), ThreadPoolExecutor(generator.concurrency)

    def reply(number: int) -> Made:
        text, seed = texts[number % len(texts)], sample_seed(ask.seed, number)
        how = {"max_tokens": ask.tokens, "temperature": ask.temperature, "top_p": ask.top_p, "seed": seed}
        try:
            return _complete(connection, generator, text, how)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return None, 0, error.message
        except openai.OpenAIError as error:
            raise ContinualError("; ".join(explain(error, generator))) from error

    try:
        yield from pool.map(reply, numbers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        connection.close()


def _complete(connection: Any, generator: Generator, text: str, how: dict[str, Any]) -> Made:
    messages = [{"role": "user", "content": text}]
    answer = connection.chat.completions.create(model=generator.model, messages=messages, **how)
    if not answer.choices:
        return None, 0, "a reply without choices"
    choice, used = answer.choices[0], answer.usage
    reply = Reply((choice.message.content or "").strip(), finished=choice.finish_reason == "stop")
    return reply, used.completion_tokens if used else 0, ""
