"""Errors that a user meets. Each carries one sentence with the place and the way out, and decides the exit code."""


class ContinualError(Exception):
    """The run failed (exit code 1)."""

    exit_code = 1


class ConfigurationError(ContinualError):
    """The configuration or the input it names is unusable (exit code 2).

    `file` is the sequence's YAML (added late, by the loader), `key` the dotted path, `fix` what to write instead.
    """

    exit_code = 2

    def __init__(self, key: str, problem: str, fix: str = "", file: str = ""):
        self.key, self.problem, self.fix, self.file = key, problem, fix, file
        super().__init__(key, problem, fix, file)

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.key) if part)
        sentence = f"{place}: {self.problem}" if place else self.problem
        return f"{sentence}; {self.fix}" if self.fix else sentence

    def within(self, prefix: str) -> "ConfigurationError":
        """The same error seen from an outer key, e.g. `stages.0.data` before `path`."""
        key = f"{prefix}.{self.key}" if self.key else prefix
        return ConfigurationError(key, self.problem, self.fix, self.file)


class ForgotTooMuch(ContinualError):
    """The sequence is done, but forgot more than `--max-forgetting` (exit code 3)."""

    exit_code = 3


class Interrupted(ContinualError):
    """Ctrl-C; what is on disk is whole and the same command goes on (exit code 130)."""

    exit_code = 130
