"""Passwords, keys and tokens: the one place that takes them out of what is printed, logged, stored or sent.

The configuration itself keeps the real values, for the clients that need them. Whatever turns it into text passes
through `redacted` (for readers) or `fingerprinted` (for comparison: equal secrets stay equal). A secret is found by its
place (a URL, a key, a header), and those of the configuration and the environment also wherever else they stand.
"""

import base64
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

from continual.errors.encoded import decoded, merged
from continual.errors.secret_names import MARK, is_hidden, is_login, is_option, is_pair, is_secret_name

SHORTEST = 6
"""Characters of a secret that is also replaced where it stands alone; shorter ones occur by chance."""
QUOTE = r"[\"'](?![\s,:;}\])]|$)"
"""A quotation mark that does not end a text: it may be part of a password."""
SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,40}://)"
NAME = r"(?P<name>[A-Za-z][\w.\-]{0,80})"
USER = re.compile(SCHEME + rf"(?P<user>(?:[^\s:/?#@\"'<>]|{QUOTE})*):(?P<secret>(?:[^\s\"'<>]|{QUOTE})*)@")
LOGIN = re.compile(SCHEME + rf"(?P<secret>(?:[^\s:/?#@\"'<>]|{QUOTE})+)@")
WHOLE = re.compile(rf"\s*{SCHEME}(?P<user>[^:/?#@]*):(?P<secret>.*)@", re.DOTALL)
"""A value that is a URL with a login, whose password may hold anything."""
BARE = re.compile(
    r"(?<![\w./@:%+\-])(?P<before>(?:[\w.+\-]{1,64}|(?P<slashes>//)[^\s:/?#@\"'<>]{0,64}):)(?P<secret>[^\s/@\"'<>]{1,256})@"
    r"(?=(?(slashes)\w|[\w\-]+(?:\.[\w\-]+)*:\d{2,5}(?![\w.])))"
)
"""A login before a host with a port, or behind two slashes, without a scheme."""
ALONE = re.compile(
    r"^(?P<before>(?!mailto|sips?|acct|xmpp)[^\s:/@]+:)(?P<secret>[^\s/@]+)@(?=[\w\-]+(?:\.[\w\-]+)+(?:/|$))"
)
"""A value that is a login and a host, without a scheme."""
NAMED = re.compile(r"(?i:postgres|postgresql|mysql|mariadb|mssql|oracle|ssh|sftp|git|abfss?|wasbs?)(?i:\+[\w.\-]+)?://")
"""Schemes whose login without a password is the name of a user or a container; elsewhere it may be a token."""
PARAMETER = re.compile(
    NAME + r"(?P<sign>=|%3D)(?P<secret>[^\s&;\"'<>]+?)(?=%3B|%26|[()\[\]{},.]{0,4}(?:[\s&;\"'<>]|$))", re.IGNORECASE
)
QUOTED = re.compile(
    NAME + r"(?P<sign>[\"']?\s*[=:]\s*)(?P<quote>[\"'])(?P<secret>(?:\\.|(?!(?P=quote))[^\\]){1,4096})(?P=quote)"
)
AUTHORIZATION = re.compile(
    r"(?P<before>\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:(?:Basic|Bearer|Digest|Token|ApiKey|Negotiate|NTLM)\s+)?)"
    r"(?P<secret>[^\s\"',;}]+)",
    re.IGNORECASE,
)
HEADER = re.compile(
    r"\b(?P<name>[A-Za-z]{1,30}-[A-Za-z\-]{1,60}|Cookie)(?P<sign>:\s+)(?P<secret>[^\s\"',}]{6,})", re.IGNORECASE
)
BEARER = re.compile(r"(?P<before>\bBearer\s+)(?P<secret>[\w.~+/=\-]{8,})")
SHAPE = re.compile(
    r"\b(?P<secret>hf_[A-Za-z0-9]{30,}|sk-[\w\-]{32,}|gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w\-]{18,}|xox[abeprs]-[\w\-]{20,}"
    r"|AIza[\w\-]{30,}|AKIA[A-Z0-9]{16}|eyJ[\w\-]{8,}\.eyJ[\w\-]{8,}\.[\w\-]{8,})"
)

OPTION = re.compile(r"(?<!\S)(?P<sign>--?)(?P<name>[A-Za-z][\w\-]{0,80})(?P<blank>[ \t]+)(?P<secret>[^\s\-\"']\S*)")
"""An option of a command and what stands behind it."""
USER_OPTIONS = ("-u", "--user", "--proxy-user")
"""Options of commands behind which a name and a password may stand."""
NAMED_BY = ("name", "key", "header")
"""Keys that name what the key `value` beside them holds."""
FOUND = re.compile("\ufdd0(\\d+)\ufdd1")
"""What stands for a secret while its place is looked for; both characters are none of any text."""
DECODED = 3
"""How often a text may have been percent-encoded."""

Hidden = Callable[[str], str]
"""What a secret becomes, which may have been replaced before."""


class _Known:
    """The secrets of this process: those given to `remember`, and from the first use those of the environment."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secrets: set[str]) -> None:
        new = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
        if not new <= self._forms:
            self._forms |= new
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    @functools.cached_property
    def environment(self) -> bool:
        """Whether the environment's secrets were added, which the first look does."""
        self.add(_of_environment())
        return True

    def replaced(self, text: str) -> str:
        assert self.environment
        return self._pattern.sub(MARK, text) if self._pattern else text


_known = _Known()


def redacted(value: Any, known: bool = True) -> Any:
    """Return a JSON-able value, or a text, with `***` in place of every secret that it holds.

    Secrets are passwords of URLs, values of keys, parameters and headers named like one (`token=`, `api_key:`), tokens
    of a well-known form, and with `known` also those of the environment and of `remember`, wherever they stand.
    """
    return _without(value, _marked, known)


def fingerprinted(value: Any) -> Any:
    """Return the value with a hash in place of every secret, so that a changed secret is still a change.

    The hash is slow on purpose: a password cannot be found from it by trying a dictionary at full speed.
    """
    return _without(value, _fingerprint, known=False)


def secrets_in(value: Any) -> list[str]:
    """Return the secrets that a configuration holds."""
    return [secret for secret in _found(value) if not is_hidden(secret)]


def left_out(value: Any) -> bool:
    """Return whether a secret of this value was replaced by `***` before, so that no client could use it."""
    return any(is_hidden(secret) for secret in _found(value))


def _found(value: Any) -> list[str]:
    found: list[str] = []

    def keep(secret: str) -> str:
        found.append(secret)
        return ""

    _without(value, keep, known=False)
    return found


def remember(value: Any) -> None:
    """Replace the secrets of a configuration, and of the environment as it is now, wherever they stand from now on."""
    found = secrets_in(value)
    _known.add({*found, *(secret.partition(":")[2] for secret in found), *_of_environment()})


def _of_environment() -> set[str]:
    """Return the secrets of the environment: values of names like HF_TOKEN, and passwords of URLs such as proxies'."""
    found: set[str] = set()
    for name, text in os.environ.items():
        if is_secret_name(name) and not _is_path(name, text):
            found.add(text)
        elif "://" in text:
            found.update(part for secret in secrets_in(text) for part in (secret, secret.partition(":")[2]))
    return found


def _is_path(name: str, text: str) -> bool:
    """Return whether a variable names a file or folder, as PWD and GOOGLE_APPLICATION_CREDENTIALS do."""
    return name in ("PWD", "OLDPWD") or os.path.exists(text)  # noqa: PTH110  pathlib raises for a text that is no path


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as clients, quotation marks and headers write it."""
    from urllib.parse import quote, quote_plus, unquote  # takes a while, and most commands hold no secret

    for plain in {secret, unquote(secret)}:
        data = plain.encode("utf-8", "surrogatepass")
        yield from (plain, quote(data, safe=""), quote(data), quote_plus(data))
        yield from (repr(plain)[1:-1], json.dumps(plain)[1:-1], plain.replace("'", "''"))
        yield from (plain.replace("'", "\\'"), base64.b64encode(data).decode())


def _marked(secret: str) -> str:
    return secret if is_hidden(secret) else MARK


@functools.lru_cache(maxsize=256)
def _fingerprint(secret: str) -> str:
    if is_hidden(secret):
        return secret
    data = secret.encode("utf-8", "surrogatepass")
    return MARK + hashlib.scrypt(data, salt=b"continual", n=4096, r=8, p=1).hex()[:16]


def _without(value: Any, hidden: Hidden, known: bool, inside: bool = False) -> Any:
    """Return the value with its secrets hidden; `inside`: a text is a value of a configuration, not words around it."""
    if isinstance(value, Mapping):
        pair = any(isinstance(value.get(by), str) and is_secret_name(value[by]) for by in NAMED_BY)
        return {
            name: _all(item, hidden)
            if is_secret_name(str(name)) or is_login(str(name), item) or (pair and name == "value")
            else _without(item, hidden, known, inside=True)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return list(_items(value, hidden, known))
    if not isinstance(value, str):
        return value
    text = _in_text(value, hidden, inside)
    if "%" in text:
        text = re.sub(r"\S+", lambda found: _in_encoded(found[0], hidden), text)
    return _known.replaced(text) if known else text


def _items(items: Iterable[Any], hidden: Hidden, known: bool) -> Iterator[Any]:
    """Yield a list without its secrets: what stands behind an option of a command, or behind the name of a header."""
    before: Any = None
    for number, item in enumerate(items):
        header = number == 1 and isinstance(before, str) and "-" in before.strip("-") and is_secret_name(before)
        user = before in USER_OPTIONS and is_pair(item)
        option = is_option(before) and not (isinstance(item, str) and item.startswith("-"))
        yield _all(item, hidden) if header or user or option else _without(item, hidden, known, inside=True)
        before = item


def _in_text(text: str, hidden: Hidden, inside: bool = False) -> str:
    """Hide the secrets of a text as it is written."""
    text = _named(_logins(text, hidden, inside), hidden)
    return SHAPE.sub(lambda found: hidden(found["secret"]), text)


def _in_encoded(text: str, hidden: Hidden) -> str:
    """Hide the secrets that a text shows when it is decoded, where they are written."""
    for first, last in reversed(merged(_encoded_spans(text, DECODED))):
        text = text[:first] + hidden(decoded(text[first:last])[0]) + text[last:]
    return text


def _encoded_spans(text: str, times: int) -> list[tuple[int, int]]:
    """Return where the secrets stand that a text shows when it is decoded, up to so many times."""
    if "%" not in text:
        return []
    plain, starts = decoded(text)
    if plain == text or not times:
        return []
    spans = _spans(plain) + _encoded_spans(plain, times - 1)
    return [(starts[first], starts[last]) for first, last in spans]


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where the secrets of a text stand in it."""
    secrets: list[str] = []

    def keep(secret: str) -> str:
        secrets.append(FOUND.sub(lambda found: secrets[int(found[1])], secret))
        return f"\ufdd0{len(secrets) - 1}\ufdd1"

    marked = _in_text(text.replace("\ufdd0", "?"), keep)
    spans, at, end = [], 0, 0
    for found in FOUND.finditer(marked):
        at += found.start() - end
        secret, end = secrets[int(found[1])], found.end()
        spans.append((at, at + len(secret)))
        at += len(secret)
    return spans


def _all(value: Any, hidden: Hidden) -> Any:
    """Return the value of a key that holds a secret: a text or a number is one, a truth value or null is none."""
    if isinstance(value, Mapping):
        return {name: _all(item, hidden) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_all(item, hidden) for item in value]
    return value if value is None or value == "" or isinstance(value, bool) else hidden(str(value))


def _logins(text: str, hidden: Hidden, inside: bool) -> str:
    """Hide the passwords of URLs; where the whole text is one, a password may hold blanks and quotation marks."""
    if "@" not in text:
        return text
    if "://" in text:
        whole = WHOLE.match(text) if inside else None
        if whole:
            text = _login(whole, hidden) + text[whole.end() :]
        text = USER.sub(lambda found: _login(found, hidden), text)
        text = LOGIN.sub(
            lambda found: found[0] if NAMED.match(found["scheme"]) else f"{found['scheme']}{hidden(found['secret'])}@",
            text,
        )
    bare = ALONE if inside and ALONE.match(text) else BARE
    return bare.sub(lambda found: f"{found['before']}{hidden(found['secret'])}@", text)


def _login(found: re.Match[str], hidden: Hidden) -> str:
    """Return a URL's user without the password; of http also without the name, which may be a token itself."""
    user, secret = found["user"], found["secret"]
    if found["scheme"].lower() in ("http://", "https://") and not is_hidden(secret):
        return f"{found['scheme']}{hidden(f'{user}:{secret}')}@"
    return f"{found['scheme']}{user}:{hidden(secret) if secret else ''}@"


def _named(text: str, hidden: Hidden) -> str:
    """Hide the values of parameters, quoted keys and headers that are named like a secret."""

    def value(found: re.Match[str]) -> str:
        before = found.string[max(0, found.start() - 1) : found.start()]
        in_query = before in ("?", "&") and found["name"].lower() == "key"
        if not in_query and not is_secret_name(found["name"]):
            return found[0]
        quote = found.groupdict().get("quote") or ""
        return f"{found['name']}{found['sign']}{quote}{hidden(found['secret'])}{quote}"

    def option(found: re.Match[str]) -> str:
        if not is_secret_name(found["name"]):
            return found[0]
        return f"{found['sign']}{found['name']}{found['blank']}{hidden(found['secret'])}"

    if '"' in text or "'" in text:
        text = QUOTED.sub(value, text)
    if "=" in text or "%3" in text:
        text = PARAMETER.sub(value, text)
    if "-" in text:
        text = OPTION.sub(option, text)
    for pattern in (AUTHORIZATION, BEARER):
        text = pattern.sub(lambda found: f"{found['before']}{hidden(found['secret'])}", text)
    return HEADER.sub(value, text) if ": " in text else text


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
