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
        ("X-Functions-Key: abcdef", "X-Functions-Key: ***"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC Driver 18%7D%3BSERVER%3Dh%3BUID%3Dsa%3BPWD%3Dp4ss%3Bx%3D1",
         "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC Driver 18%7D%3BSERVER%3Dh%3BUID%3Dsa%3BPWD%3D***%3Bx%3D1"),
        ("http://h/?q=a%3Bpwd%3Dp4%C3%BCs", "http://h/?q=a%3Bpwd%3D***"),
        ("x%253Btoken%253Dp4ss%253Bn%253D1", "x%253Btoken%253D***%253Bn%253D1"),
        ("sb%3A//h%3BSharedAccessKey%3Dp4ss", "sb%3A//h%3BSharedAccessKey%3D***"),
        ("next=http%3A%2F%2Fme%3Ap4ss%40host%2Fx", "next=http%3A%2F%2F***%40host%2Fx"),
        ("me:p4ss@host:5000", "me:***@host:5000"),
        ("cannot reach me:p4ss@db.example.com:5432, twice", "cannot reach me:***@db.example.com:5432, twice"),
        ("//me:p4ss@host/x", "//me:***@host/x"),
        ("mine --password p4ss --n 3", "mine --password *** --n 3"),
        ("unrecognized arguments: --api-key p4ss", "unrecognized arguments: --api-key ***"),
        ("xoxb-123456789012-123456789012-abcdef", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3", "***"),
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
        ("mailto:me@host.org, image:tag@sha256:0123abcd, a ratio of 3:4@x", None),
        ("give --fresh to begin, --max-forgetting 0.5, --password-file x, 100%25 done, a%20b%3Dc", None),
        ("tokens%3D5 and batch_tokens%3D256", None),
    ],
)  # fmt: skip
def test_texts(text: str, expected: str | None) -> None:
    assert redacted(text) == (text if expected is None else expected)


@pytest.mark.parametrize("name", [
    "password", "api_key", "hf_token", "token", "aws_secret_access_key", "db_password", "api-key", "X-Api-Key",
    "access-key", "dbPassword", "clientSecret", "PGPASSWORD", "pass", "DB_PASS", "hubToken", "secretValue", "password2",
    "api_keys", "access_tokens", "accessTokens", "openai_key", "OPENAI_KEY", "hf_tokens", "WANDB_KEY", "X-Auth",
    "x-functions-key", "X-Ocp-Key", "private_key_pem", "api_key_value", "credentials_json", "license_key", "db_pw",
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
        "tokens",
        "sample_tokens",
        "trained_tokens",
        "author",
        "auth",
        "keys",
        "sort_key",
        "primary_keys",
        "key_value",
        "value",
        "x_key",
    ],
)
def test_keys_that_are_not(name: str) -> None:
    assert redacted({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"auth": ["me", "p4ss"]}, {"auth": ["***", "***"]}),
        ({"http": {"login": "me:p4ss"}}, {"http": {"login": "***"}}),
        ({"api_keys": ["p4ss", {"a": "p5ss"}]}, {"api_keys": ["***", {"a": "***"}]}),
        ({"headers": {"X-Auth": "p4ss"}}, {"headers": {"X-Auth": "***"}}),
        ([{"name": "password", "value": "p4ss"}], [{"name": "password", "value": "***"}]),
        ({"key": "api_key", "value": "p4ss", "n": 3}, {"key": "api_key", "value": "***", "n": 3}),
        (["--password", "p4ss", "--n", "3"], ["--password", "***", "--n", "3"]),
        (["curl", "-u", "me:p4ss"], ["curl", "-u", "***"]),
        ({"headers": [["X-Api-Key", "p4ss"]]}, {"headers": [["X-Api-Key", "***"]]}),
        ({"host": "me:p4ss@db.example.com/x"}, {"host": "me:***@db.example.com/x"}),
        # What is no secret stays as it is.
        ({"auth": True, "tokens": 5, "author": "me: you", "key": "value"}, None),
        ({"auth": "basic", "name": "sort", "value": 3}, None),
        ([{"name": "tokens", "value": 5}, ["token", "label"], ["--token", "--x"], ["-u", "me"]], None),
        ({"to": "mailto:me@host.org", "at": "12:30@x"}, None),
    ],
)
def test_values_that_are_secrets_by_their_place(value: Any, shown: Any) -> None:
    assert redacted(value) == (value if shown is None else shown)
    assert fingerprinted(fingerprinted(value)) == fingerprinted(value)
    assert bool(secrets_in(value)) == left_out(redacted(value)) == (shown is not None)


@pytest.mark.parametrize("times", [0, 1, 2, 3])
@given(
    name=st.sampled_from(["PWD", "token", "api_key", "Password", "openai_key", "SharedAccessKey"]),
    secret=st.from_regex(r"[A-Z0-9!$*~_ü€%.:/@]{6,20}", fullmatch=True),
    before=st.text(alphabet="ab/?=%;:é ", max_size=12),
)
def test_no_encoded_secret_is_left(times: int, name: str, secret: str, before: str) -> None:
    text = f"{before};{name}={secret};x=1"
    for _ in range(times):
        text, secret = quote(text, safe=""), quote(secret, safe="")
    for shown in (redacted(text), fingerprinted(text)):
        assert secret not in shown
        assert fingerprinted(shown) == shown


def test_a_secret_that_was_encoded_is_known_also_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", secrets._Known())
    remember({"track": {"uri": "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Dpl%40nted-one%3Bx%3D1"}})
    assert redacted("login failed: pl@nted-one, pl%40nted-one") == "login failed: ***, ***"


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
        "%3B" * 60_000 + "x%3D",
        "%253Ba%253D" * 20_000,
        "%" * 200_000 + " %41",
        "x:" * 100_000 + "@h:80",
        "//" * 100_000 + "@",
        "--a " * 50_000,
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
