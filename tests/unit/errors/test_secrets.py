"""What becomes text holds no secret: passwords of URLs, tokens in queries, values of keys named like one."""

import base64
import io
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from continual.errors import secrets
from continual.errors.secrets import RedactedStream, fingerprinted, left_out, redacted, remember, secrets_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:p4ss@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("mysql+pymysql://me:p%40ss@host/db?charset=utf8", "mysql+pymysql://me:***@host/db?charset=utf8"),
        ("https://me:p4ss@host/x", "https://***@host/x"),
        ("https://t0ken@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("postgresql://me:p/w#?@host/db", "postgresql://me:***@host/db"),
        ("http://host/v1?token=abc&x=1", "http://host/v1?token=***&x=1"),
        ("http://host/v1?x=1&api_key=abc#f", "http://host/v1?x=1&api_key=***"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=abc&X-Amz-Security-Token=def",
         "https://b.s3.amazonaws.com/k?X-Amz-Signature=***&X-Amz-Security-Token=***"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER;UID=me;PWD=p4ss;x=1",
         "mssql+pyodbc:///?odbc_connect=DRIVER;UID=me;PWD=***;x=1"),
        ("track.uri=http://me:p4ss@host", "track.uri=http://***@host"),
        ("(connection to http://me:p4ss@host failed)", "(connection to http://***@host failed)"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("hf_" + "a" * 34, "***"),
        ("http://me:p'w\"x@host/x", "http://***@host/x"),
        ("cannot reach 'http://me:p'w@host', twice", "cannot reach 'http://***@host', twice"),
        ("http://host/v1?key=abc&x=1", "http://host/v1?key=***&x=1"),
        ("http://host/v1?x=1&api-key=abc", "http://host/v1?x=1&api-key=***"),
        ("host=h password='p4 ss' user=me", "host=h password='***' user=me"),
        ('{"client_secret": "p4 \\"ss", "x": "y"}', '{"client_secret": "***", "x": "y"}'),
        ("password=p4(s[s", "password=***"),
        ("databricks://t0ken@host", "databricks://***@host"),
        ("redis://t0ken@host/0", "redis://***@host/0"),
        ("Authorization: Basic xxx", "Authorization: Basic ***"),
        ("{'Authorization': 'Basic bWU6cDRzcw=='}", "{'Authorization': '***'}"),
        ("X-Api-Key: abcdef", "X-Api-Key: ***"),
        # What is no secret stays as it is.
        ("train.batch_tokens: 'x' is not a number", None),
        ('{"a":"http://host:80","b":"x@y"}', None),
        ("Basic training, 0.3 seconds_per_token=0.3, key=value", None),
        ("abfss://container@account/path and mysql+pymysql://me@host/db", None),
        ("sqlite:////data/runs/mlflow.db", None),
        ("http://127.0.0.1:5000/path?page=2", None),
        ("start_token=<sort> end_token=x", None),
        ("step 3: loss=0.5, tokens=100", None),
        ("/home/me/data/train.jsonl", None),
        ("postgresql://me@host/db", None),
    ],
)  # fmt: skip
def test_texts(text: str, expected: str | None) -> None:
    assert redacted(text) == (text if expected is None else expected)


@pytest.mark.parametrize("name", [
    "password", "api_key", "hf_token", "token", "aws_secret_access_key", "db_password", "api-key", "X-Api-Key",
    "access-key", "dbPassword", "clientSecret", "PGPASSWORD", "pass", "DB_PASS", "hubToken", "secretValue", "password2",
])  # fmt: skip
def test_keys_that_are_named_like_a_secret(name: str) -> None:
    assert redacted({"a": [{name: "p4ss", "other": "x"}]}) == {"a": [{name: "***", "other": "x"}]}
    assert redacted({name: 1234}) == {name: "***"}
    assert redacted({name: None}) == {name: None}


@pytest.mark.parametrize(
    "name",
    [
        "start_token",
        "batch_tokens",
        "row_tokens",
        "eos_token",
        "api_key_env",
        "new_tokens",
        "eosToken",
        "key",
        "password_file",
        "passes",
    ],
)
def test_keys_that_are_not(name: str) -> None:
    assert redacted({name: "x"}) == {name: "x"}


def test_a_changed_secret_is_a_change_and_an_equal_one_is_none() -> None:
    one, other = ({"url": f"http://me:{password}@host"} for password in ("p4ss", "p5ss"))
    assert fingerprinted(one) != fingerprinted(other)
    assert fingerprinted(one) == fingerprinted(dict(one))
    assert fingerprinted(fingerprinted(one)) == fingerprinted(one)
    assert "p4ss" not in str(fingerprinted(one))
    assert fingerprinted({"path": "a.jsonl", "n": 1}) == {"path": "a.jsonl", "n": 1}


def test_what_clients_quote_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", secrets._Known())
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key")
    monkeypatch.setenv("PWD", "/work/folder")
    remember({"track": {"uri": "postgresql://me:pass%2Fword@host"}})
    assert redacted("FATAL: password pass/word refused; key planted-key") == "FATAL: password *** refused; key ***"
    assert redacted("/work/folder/seq.yaml") == "/work/folder/seq.yaml"


FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "percent-encoded": lambda text: quote(text, safe=""),
    "in a form": quote_plus,
    "in JSON": json.dumps,
    "as Python shows it": repr,
    "in YAML": lambda text: yaml.safe_dump(text, allow_unicode=True),
    "in a header": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("password", ["p'w\"x y", "plain-one", "ünï%20@x", "a<b>&c=d"])
def test_a_password_of_the_configuration_is_replaced_in_every_form(
    monkeypatch: pytest.MonkeyPatch, form: str, password: str
) -> None:
    monkeypatch.setattr(secrets, "_known", secrets._Known())
    config = {"track": {"uri": f"http://me:{password}@host"}}
    assert password not in str(redacted(config))
    assert password not in str(fingerprinted(config))
    remember(config)
    written = FORMS[form](password)
    assert written.strip() not in redacted(f"it says {written} here")


def test_secrets_of_the_environment_need_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker of Ray's, which reads none."""
    monkeypatch.setattr(secrets, "_known", secrets._Known())
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-one")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:planted-two@proxy:80")
    monkeypatch.setenv("SOME_MODE", "planted-three")
    assert redacted("planted-one planted-two planted-three") == "*** *** planted-three"


def test_long_texts_take_no_time() -> None:
    texts = [
        "x" * 200_000 + "://@=: '",
        "a=" + "(" * 100_000,
        "a-" * 100_000 + ": x",
        "x://" * 50_000 + "@",
        "a='" * 60_000,
    ]
    begun = time.process_time()
    for text in texts:
        redacted(text)
    assert time.process_time() - begun < 5


def test_a_stream_redacts_and_stays_a_stream() -> None:
    below = io.StringIO()
    print("to http://me:p4ss@host", file=RedactedStream(below))
    assert below.getvalue() == "to http://***@host\n"


def test_a_redacted_value_is_known_as_one() -> None:
    assert left_out(redacted({"uri": "http://me:p4ss@host"}))
    assert left_out(redacted({"a": [{"api_key": "p4ss"}]}))
    assert not left_out({"uri": "http://me:p4ss@host", "n": 1})
    assert secrets_in({"a": ["postgresql://me:p4ss@host"]}) == ["p4ss"]


@given(
    user=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    password=st.from_regex(r"[A-Z0-9!$*~_%.:;,@/-]{6,20}", fullmatch=True).filter(lambda text: "@" not in text[-1:]),
    scheme=st.sampled_from(["http", "https", "postgresql", "mysql+pymysql", "s3", "redis"]),
)
def test_no_password_of_any_url_is_left(user: str, password: str, scheme: str) -> None:
    value: Any = {"a": {"b": [f"{scheme}://{user}:{password}@host/x"]}}
    for shown in (redacted(value), fingerprinted(value)):
        assert password not in str(shown)
