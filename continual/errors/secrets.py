"""Passwords, keys and tokens: the one place that takes them out of what is printed, logged, stored or sent.

The configuration itself keeps the real values, for the clients that need them. Whatever turns it into text passes
through `redacted` (for readers) or `fingerprinted` (for comparison: equal secrets stay equal).
"""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

MARK = "***"
"""What stands in place of a secret; in what is compared, a hash follows."""
SHORTEST = 6
"""Characters of a secret that is also replaced where it stands alone; shorter ones occur by chance."""
NAME = re.compile(
    r"(?:^|[_.\-])(?:password|passwd|passphrase|pwd|secrets?|credentials?|api_?key|access_?key|secret_?key|private_?key"
    r"|account_?key|signature|sig|authorization|bearer"
    r"|(?:hf|hub|api|auth|access|refresh|bearer|session|security|sas|git|github|gitlab|personal|private|secret"
    r"|tracking|write|read)[_\-]?token)$|^token$|_TOKEN$",
    re.IGNORECASE,
)
"""Names of keys, query parameters and environment variables that hold secrets."""
NO_SECRET = re.compile(r"(?:^|[_.\-])(?:start|end|pad|bos|eos|unk|cls|sep|mask|special|stop)_token$", re.IGNORECASE)
USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^\s:/?#@\"'<>]*):(?P<secret>[^\s\"'<>]*)@")
LOGIN = re.compile(r"(?P<scheme>https?://)(?P<secret>[^\s:/?#@\"'<>]+)@", re.IGNORECASE)
PARAMETER = re.compile(
    r"(?P<name>[A-Za-z][\w.\-]*)(?P<sign>=|%3D)(?P<secret>[^\s&;\"'<>()\[\]{},]+?)(?=%3B|%26|[\s&;\"'<>()\[\]{},]|$)",
    re.IGNORECASE,
)
BEARER = re.compile(r"(?P<before>\bBearer\s+)(?P<secret>[\w.~+/=\-]{8,})")
SHAPE = re.compile(r"\b(?P<secret>hf_[A-Za-z0-9]{30,}|sk-[\w\-]{32,}|gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w\-]{18,})")

Hidden = Callable[[str], str]
_known: set[str] = set()


def redacted(value: Any, known: bool = True) -> Any:
    """Return a JSON-able value, or a text, with `***` in place of every secret that it holds.

    Secrets are passwords of URLs, values of keys and parameters named like one (`token=`, `api_key:`), tokens of a
    well-known form, and with `known` also what `remember` was given, wherever it stands.
    """
    return _without(value, lambda secret: MARK, known)


def fingerprinted(value: Any) -> Any:
    """Return the value with a hash in place of every secret, so that a changed secret is still a change.

    The hash is slow on purpose: a password cannot be found from it by trying a dictionary at full speed.
    """
    return _without(value, _fingerprint, known=False)


def secrets_in(value: Any) -> list[str]:
    """Return the secrets that a configuration holds."""
    found: list[str] = []

    def keep(secret: str) -> str:
        found.append(secret)
        return MARK

    _without(value, keep, known=False)
    return found


def remember(value: Any) -> None:
    """Replace the secrets of a configuration and of the environment also where errors of clients quote them alone."""
    from urllib.parse import unquote  # takes a while, and most commands hold no secret

    named = [text for name, text in os.environ.items() if is_secret_name(name) and not _is_path(name, text)]
    for secret in (*secrets_in(value), *named):
        _known.update(text for text in (secret, unquote(secret)) if len(text) >= SHORTEST)


def _is_path(name: str, text: str) -> bool:
    """Return whether a variable names a file or folder, as PWD and GOOGLE_APPLICATION_CREDENTIALS do."""
    return name in ("PWD", "OLDPWD") or os.path.exists(text)  # noqa: PTH110  pathlib raises for a text that is no path


def is_secret_name(name: str) -> bool:
    """Return whether a key, a query parameter or an environment variable of this name holds a secret."""
    return bool(NAME.search(name)) and not NO_SECRET.search(name)


def left_out(value: Any) -> bool:
    """Return whether a secret of this value was replaced by `***` before, so that no client could use it."""
    return any(secret.startswith(MARK) for secret in _found(value))


def _found(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if is_secret_name(str(name)) and isinstance(item, str):
                yield item
            else:
                yield from _found(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _found(item)
    elif isinstance(value, str):
        matches = (match for pattern in (USER, LOGIN, PARAMETER) for match in pattern.finditer(value))
        yield from (match["secret"] for match in matches)


@functools.lru_cache(maxsize=256)
def _fingerprint(secret: str) -> str:
    data = secret.encode("utf-8", "surrogatepass")
    return MARK + hashlib.scrypt(data, salt=b"continual", n=4096, r=8, p=1).hex()[:16]


def _without(value: Any, hidden: Hidden, known: bool) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _whole(item, hidden) if is_secret_name(str(name)) else _without(item, hidden, known)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without(item, hidden, known) for item in value]
    return _text(value, hidden, known) if isinstance(value, str) else value


def _whole(value: Any, hidden: Hidden) -> Any:
    """Return the value of a key that holds a secret: a text or a number is one, a truth value or null is none."""
    if isinstance(value, Mapping):
        return {name: _whole(item, hidden) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item, hidden) for item in value]
    if value is None or value == "" or isinstance(value, bool):
        return value
    return _hide(str(value), hidden)


def _hide(secret: str, hidden: Hidden) -> str:
    return secret if secret.startswith(MARK) else hidden(secret)


def _text(text: str, hidden: Hidden, known: bool) -> str:
    if "://" in text:
        text = USER.sub(lambda found: _login(found, hidden), text)
        text = LOGIN.sub(lambda found: f"{found['scheme']}{_hide(found['secret'], hidden)}@", text)
    if "=" in text or "%3" in text:
        text = PARAMETER.sub(lambda found: _parameter(found, hidden), text)
    text = BEARER.sub(lambda found: f"{found['before']}{_hide(found['secret'], hidden)}", text)
    text = SHAPE.sub(lambda found: hidden(found["secret"]), text)
    for secret in sorted(_known, key=len, reverse=True) if known else ():
        text = text.replace(secret, MARK)
    return text


def _login(found: re.Match[str], hidden: Hidden) -> str:
    """Return a URL's user without the password; of http also without the name, which may be a token itself."""
    user, secret = found["user"], found["secret"]
    if found["scheme"].lower() in ("http://", "https://") and not secret.startswith(MARK):
        return f"{found['scheme']}{_hide(f'{user}:{secret}', hidden)}@"
    return f"{found['scheme']}{user}:{_hide(secret, hidden) if secret else ''}@"


def _parameter(found: re.Match[str], hidden: Hidden) -> str:
    if not is_secret_name(found["name"]):
        return found[0]
    return f"{found['name']}{found['sign']}{_hide(found['secret'], hidden)}"


class RedactedStream:
    """A text stream that redacts what is written to it; for everything else it is the stream below."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
