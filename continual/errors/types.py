"""The exceptions that a user meets. Each carries one sentence with the place and the fix, and sets the exit code."""

LONGEST = 300
"""Characters of a sentence about a configuration; a value in it may have any length."""
CUT = " ... "


def printable(text: str) -> str:
    """Return a text on one line; what a terminal would obey or a file's names may hold is written as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class ContinualError(Exception):
    """The run failed (exit code 1)."""

    exit_code = 1


class ConfigurationError(ContinualError):
    """The configuration, or an input that it names, cannot be used (exit code 2).

    `file` is the YAML (whoever reads the file adds it, see `in_file`), `key` the dotted path, `problem` what is wrong
    there and `fix` what to write instead.
    """

    exit_code = 2

    def __init__(self, key: str, problem: str, fix: str = "", file: str = ""):
        self.key, self.problem, self.fix, self.file = key, problem, fix, file
        super().__init__(key, problem, fix, file)

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.key) if part)
        sentence = f"{place}: {self.problem}" if place else self.problem
        return f"{sentence}; {self.fix}" if self.fix else sentence

    def short(self) -> str:
        """Return the sentence in at most LONGEST characters: what is longest of it is cut in its middle."""
        parts = [printable(part) for part in (self.file, self.key, self.problem, self.fix)]
        while (over := len(str(ConfigurationError(parts[1], parts[2], parts[3], parts[0]))) - LONGEST) > 0:
            place = max(range(len(parts)), key=lambda number: len(parts[number]))
            kept = max(20, len(parts[place]) - over - len(CUT))
            if kept + len(CUT) >= len(parts[place]):
                break
            parts[place] = parts[place][: kept - kept // 3] + CUT + parts[place][len(parts[place]) - kept // 3 :]
        return str(ConfigurationError(parts[1], parts[2], parts[3], parts[0]))

    def within(self, prefix: str) -> "ConfigurationError":
        """Return the same error with its key below `prefix`, e.g. `stages.0.data` before `path`."""
        key = f"{prefix}.{self.key}" if self.key else prefix
        return ConfigurationError(key, self.problem, self.fix, self.file)

    def at(self, place: str) -> "ConfigurationError":
        """Return the same error with the place of a document, e.g. `train.jsonl line 30`, before its problem."""
        return ConfigurationError(self.key, f"{place}: {self.problem}", self.fix, self.file)

    def in_file(self, file: str) -> "ConfigurationError":
        """Return the same error with `file` as its file; an error that has a file keeps it."""
        return ConfigurationError(self.key, self.problem, self.fix, self.file or file)


class ForgotTooMuch(ContinualError):
    """The sequence finished, but forgot more than `--max-forgetting` (exit code 3)."""

    exit_code = 3


class Interrupted(ContinualError):
    """The user pressed Ctrl-C; all files are complete and the same command resumes (exit code 130)."""

    exit_code = 130

    def __init__(self, sentence: str = "interrupted; run the same command again to resume"):
        super().__init__(sentence)
