"""Which names of keys, query parameters, headers and environment variables hold secrets."""

import re
from typing import Any

MARK = "***"
"""What stands in place of a secret; in what is compared, a hash follows."""
HIDDEN = re.compile(r"\*{3}([0-9a-f]{16})?")
"""Both of them. A secret may begin with three stars itself."""
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""The words of `db_password`, `dbPassword`, `DB-PASSWORD`."""
STRONG = re.compile(r"password|passwd|passphrase|passcode|secret")
"""What holds a secret wherever it stands in a name, unless the name's last word says otherwise."""
HARMLESS = re.compile(
    r"env|var|variable|file|path|folder|dir|name|id|length|count|policy|ur[li]|type|field|manager|prompt"
)
FORM = re.compile(r"pem|der|hex|json|value")
"""A last word that says only how a secret is written: `private_key_pem`."""
LAST = re.compile(
    r"pass|pwd?|passkey|credentials?|creds|signature|sig|authorization|bearer|cookies?|jwt"
    r"|(?:api|access|secret|private|account|auth)(?:key|token)s?"
)
VENDORS = (
    r"openai|anthropic|claude|gemini|google|gcp|azure|aws|hf|huggingface|face|ai|xai|mistral|cohere|groq|deepseek|together"
    r"|openrouter|replicate|fireworks|perplexity|nvidia|ngc|wandb|comet|neptune|mlflow|databricks|github|gitlab|minio"
    r"|s3|stripe|slack|pinecone|sendgrid|twilio"
)
"""Whose `key` and `tokens` open an account."""
KEYS = re.compile(
    r"api|access|secret|private|account|auth|client|encryption|decryption|shared|master|signing|ssh|service|subscription"
    rf"|storage|admin|root|sas|hmac|tls|ssl|gpg|pgp|license|deploy|webhook|functions?|{VENDORS}"
)
"""What a `key` is one of."""
NO_TOKEN = re.compile(
    r"start|end|begin|stop|pad|[be]o[stdmi]|sot|unk|cls|sep|mask|special|image|audio|video|user|assistant|system|tool"
    r"|think|prefix|suffix|middle|max|min|num|per|each|this|next|last|first|new|input|output"
)
"""What a `token` of text is one of."""
TOKENS = re.compile(rf"access|api|auth|oauth|bearer|refresh|session|secret|personal|hub|{VENDORS}")
"""What several `tokens` are that are none of text."""
LOGINS = re.compile(r"auth|oauth|login|userpwd|basicauth")
"""Last words of keys whose list, or text with a colon, is a name and a password."""


def _words(name: str) -> list[str]:
    words = [word.lower() for word in WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    return words


def is_secret_name(name: str) -> bool:
    """Return whether a key, a parameter, a header or an environment variable of this name holds a secret."""
    words = _words(name)
    while len(words) > 1 and FORM.fullmatch(words[-1]):
        words.pop()
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if HARMLESS.fullmatch(last):
        return False
    if LAST.fullmatch(last) or any(STRONG.search(word) for word in words):
        return True
    if last == "auth":
        return before in ("basic", "http", "proxy", "x")
    if last == "token":
        return not NO_TOKEN.fullmatch(before)
    if last == "tokens":
        return bool(TOKENS.fullmatch(before))
    header = words[0] == "x" and len(words) > 2  # X-Functions-Key, of any vendor
    return last in ("key", "keys") and (header or bool(KEYS.fullmatch(before)))


def is_hidden(text: str) -> bool:
    """Return whether a text stands for a secret that was hidden before."""
    return HIDDEN.fullmatch(text) is not None


def is_login(name: str, value: Any) -> bool:
    """Return whether a key holds a name and a password: `auth: [user, password]`, `auth: user:password`."""
    words = _words(name)
    if not words or not LOGINS.fullmatch(words[-1]):
        return False
    return isinstance(value, list | tuple) or is_pair(value)


def is_pair(value: Any) -> bool:
    """Return whether a value is a name and a password with a colon between them, or stood for one and was hidden."""
    return isinstance(value, str) and (":" in value or is_hidden(value))


def is_option(text: Any) -> bool:
    """Return whether an argument of a command is an option behind which a secret stands: `--password`."""
    return isinstance(text, str) and text.startswith("-") and is_secret_name(text.lstrip("-"))
