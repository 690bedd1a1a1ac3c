"""Which names of keys, query parameters, headers and environment variables hold secrets."""

import re

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""The words of `db_password`, `dbPassword`, `DB-PASSWORD`."""
STRONG = re.compile(r"password|passwd|passphrase|passcode|secret")
"""What holds a secret wherever it stands in a name, unless the name's last word says otherwise."""
HARMLESS = re.compile(
    r"env|var|variable|file|path|folder|dir|name|id|length|count|policy|ur[li]|type|field|manager|prompt"
)
LAST = re.compile(
    r"pass|pwd|credentials?|creds|signature|sig|authorization|bearer|cookies?|jwt"
    r"|(?:api|access|secret|private|account|auth)(?:key|token)"
)
KEYS = re.compile(
    r"api|access|secret|private|account|auth|client|encryption|shared|master|signing|ssh|service|subscription|storage"
    r"|admin"
)
"""What a `key` is one of."""
NO_TOKEN = re.compile(
    r"start|end|begin|stop|pad|[be]o[stdmi]|sot|unk|cls|sep|mask|special|image|audio|video|user|assistant|system|tool"
    r"|think|prefix|suffix|middle|max|min|num|per|each|this|next|last|first|new|input|output"
)
"""What a `token` of text is one of."""


def is_secret_name(name: str) -> bool:
    """Return whether a key, a parameter, a header or an environment variable of this name holds a secret."""
    words = [word.lower() for word in WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if HARMLESS.fullmatch(last):
        return False
    if LAST.fullmatch(last) or any(STRONG.search(word) for word in words):
        return True
    if last == "auth":
        return before in ("basic", "http", "proxy")
    if last == "token":
        return not NO_TOKEN.fullmatch(before)
    return last == "key" and bool(KEYS.fullmatch(before))
