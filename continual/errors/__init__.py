"""Errors that a user meets, and how any exception becomes one of them."""

from continual.errors.secrets import fingerprinted, left_out, redacted, remember, secrets_in
from continual.errors.sentences import as_one_sentence, describe, naming_file, one_line, together, unwrap, with_fix
from continual.errors.suggest import nearest
from continual.errors.types import ConfigurationError, ContinualError, ForgotTooMuch, Interrupted

__all__ = [
    "ConfigurationError",
    "ContinualError",
    "ForgotTooMuch",
    "Interrupted",
    "as_one_sentence",
    "describe",
    "fingerprinted",
    "left_out",
    "naming_file",
    "nearest",
    "one_line",
    "redacted",
    "remember",
    "secrets_in",
    "together",
    "unwrap",
    "with_fix",
]
