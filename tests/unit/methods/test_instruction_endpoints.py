"""Endpoints that answer and judge: what is asked again, counted, resumed and refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from baselines.instructions import endpoint as endpoints
from continual.errors import ConfigurationError, ContinualError
from tests.kits.instructions import said, serving
from tests.kits.synthesis import (
    context,
    judged,
    pairs_of,
    prepared,
    usual,
)


def remote(url: str, **options: Any) -> dict[str, Any]:
    return {"type": "openai", "url": url, "model": "m", "retries": 2, "concurrency": 3, **options}


def obliging(body: dict[str, Any], number: int) -> dict[str, Any]:
    found = judged(said(body))
    return {"content": ("Score: 5" if found[1].startswith("served") else "Score: 2") if found else "served"}


def test_an_endpoint_answers_and_judges(
    folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(usual)
    monkeypatch.setenv("THE_KEY", "secret")
    with serving(obliging) as server:
        generators = [{"type": "local", "source": "self"}, remote(server.url, api_key_env="THE_KEY")]
        ctx = context(folders, tmp_path, generators=generators)
        made = prepared(ctx)
        # One trial, 4 instructions x 2 answers, 16 candidates to judge.
        assert len(server.requests) == 1 + 8 + 16
        assert set(server.keys) == {"Bearer secret"}
        answers = server.requests[1:9]
        assert {body["max_tokens"] for body in answers} == {40}
        assert len({body["seed"] for body in answers}) == 8
        assert {said(body) for body in answers} == {"Name a tree", "Count to ten", "Say hello", "Sing"}
        assert {body["temperature"] for body in server.requests[9:]} == {0.3}
    assert {pair["messages"][1]["content"] for pair in pairs_of(made)} == {"served"}
    assert {pair["score"] for pair in pairs_of(made)} == {5.0}
    assert made["pairs"].manifest()["unparsable_by"] == [16, 0]
    assert not any("secret" in p.read_text(errors="ignore") for p in tmp_path.rglob("*") if p.is_file())
    # The server is gone, and not needed.
    assert prepared(ctx) == made
    tokens = [
        json.loads(p.read_text())["counts"]["tokens"] for p in (tmp_path / "store/replies").glob("*/manifest.json")
    ]
    assert sorted(tokens) == [7 * 8, 7 * 16]


def test_another_version_of_an_endpoint_is_asked_again(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)
    with serving(obliging) as server:
        made, asked = [], []
        for version in (None, None, 1, "b", 1):
            made.append(prepared(context(folders, tmp_path, generators=[remote(server.url, version=version)])))
            asked.append(len(server.requests))
    assert asked[0] == asked[1] < asked[2] < asked[3] == asked[4]
    assert made[0] == made[1]
    assert made[2] == made[4]
    assert len({one["pairs"].hash for one in made}) == 3


def test_what_a_server_refuses_for_a_time_is_asked_again(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)
    with serving(lambda body, number: 503 if number in (2, 3) else 429 if number == 4 else obliging(body, number)) as s:
        ctx = context(folders, tmp_path, generators=[remote(s.url)])
        made = prepared(ctx)
        assert len(s.requests) == 1 + 8 + 8 + 3
        assert len(pairs_of(made)) == 4


def test_a_server_that_stays_away_ends_the_run_and_what_it_said_stays(
    folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(usual)
    monkeypatch.setattr(endpoints, "SHARD", 4)
    with serving(lambda body, number: obliging(body, number) if number < 5 else 500) as server:
        ctx = context(folders, tmp_path, generators=[remote(server.url, retries=0, concurrency=1)])
        with pytest.raises(ContinualError, match=r"does not answer.*the same command resumes"):
            prepared(ctx)
        server.answer = obliging
        before = len(server.requests)
        prepared(ctx)
        # Of 8 answers the first 4 were there; a trial, 4 answers and 8 scores were not.
        # One may still have been on its way.
        assert len(server.requests) - before - (1 + 4 + 8) in (0, 1)


def test_requests_that_are_refused_are_counted_up_to_a_limit(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)

    def picky(body: dict[str, Any], number: int) -> Any:
        return 400 if said(body) == "Say hello" else {"content": "x", "finish_reason": "length"} if number == 1 else (
            obliging(body, number))  # fmt: skip

    with serving(picky) as server:
        ctx = context(folders, tmp_path / "a", generators=[remote(server.url, concurrency=1)])
        with pytest.raises(ContinualError, match=r"refused 2 of 8 requests.*max_failed` \(0.01\).*no: 400"):
            prepared(ctx)
    with serving(picky) as server:
        ctx = context(folders, tmp_path / "b", generators=[remote(server.url, concurrency=1)])
        ctx.sequence = ctx.sequence.model_copy(
            update={"generate": ctx.sequence.generate.model_copy(update={"max_failed": 0.5})}
        )
        manifest = prepared(ctx)["pairs"].manifest()
        assert [manifest[k] for k in ("failed_answers", "cut_answers", "unanswered", "kept")] == [2, 1, 1, 3]


@pytest.mark.parametrize(
    ("status", "key", "expected"),
    [
        (401, "THE_KEY", "refuses the key in THE_KEY"),
        (403, None, "refuses requests without a key"),
        (404, None, "knows no `m`"),
        (400, None, r"refuses a request to `m` \(.*no: 400"),
        (500, None, r"does not answer \(.*no: 500"),
        (None, None, "cannot be reached .*; start the server or correct `url`"),
    ],
)
def test_an_endpoint_that_cannot_serve_is_told_before_anything_is_sampled(
    folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch,
    status: int | None, key: str | None, expected: str,
) -> None:  # fmt: skip
    engine = here(usual)
    monkeypatch.setenv("THE_KEY", "wrong")
    with serving(lambda body, number: status or 200) as server:
        url = server.url if status else "http://127.0.0.1:9/v1"
        generators = [{"type": "local", "source": "self"}, remote(url, api_key_env=key, retries=0)]
        ctx = context(folders, tmp_path, generators=generators)
        with pytest.raises(ConfigurationError, match=expected):
            prepared(ctx)
    assert engine.asked == []
