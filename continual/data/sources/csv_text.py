"""Documents written as tables of text: csv and tsv."""

import codecs
import csv
import sys
from collections.abc import Iterator, Sequence
from typing import IO

from continual.contract.columns import EmptyCell, readable
from continual.contract.source import Document
from continual.data.sources.bytes import LONGEST, text
from continual.errors import ConfigurationError, one_line
from continual.errors.budget import LINE, reaches, spend

EMPTY = EmptyCell()
OTHER_DELIMITERS = (";", "\t", "|")
"""Signs that are not taken for delimiters by themselves, and that no name of a column is likely to have."""


class _Lines:
    """The lines of a table, of which a row may take several: `row` is how many characters it has so far.

    Raises ConfigurationError for a row of more than LONGEST characters.
    """

    def __init__(self, file: IO[str]):
        self._file, self.row = file, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST + 1)
        if not line:
            raise StopIteration
        spend(LINE)
        self.row += len(line)
        reaches(self.row)
        if self.row > LONGEST:
            fix = "close the quote that it begins with, or set `quoted: false`"
            raise ConfigurationError("path", f"a row has more than {LONGEST >> 20} MiB", fix)
        return line


def csv_documents(
    data: IO[bytes], delimiter: str, columns: Sequence[str] | None = None, quoted: bool = True
) -> Iterator[tuple[str, Document | ConfigurationError]]:
    """Yield the rows of an open table with their lines; a row that is broken does not end them.

    Args:
        data: The file.
        delimiter: The sign between cells.
        columns: The names of the columns; None: the first row has them.
        quoted: Whether cells may stand in double quotes.

    Raises:
        ConfigurationError: The header is broken, or a row is longer than LONGEST characters.
    """
    if data.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # type: ignore[attr-defined]
        raise ConfigurationError("path", "line 1: not UTF-8 text (byte 1)", "save the file as UTF-8")
    csv.field_size_limit(min(sys.maxsize, 1 << 31))
    lines = _Lines(text(data))
    rows = csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    names = list(columns or ())
    while True:
        line, lines.row = rows.line_num + 1, 0
        try:
            cells = next(rows)
        except StopIteration:
            return
        except ConfigurationError as error:
            raise error.at(f"line {line}") from error
        except csv.Error as error:
            fix = "write a quote within a cell twice, or set `quoted: false`"
            yield f"line {line}", ConfigurationError("path", f"not a valid table row ({one_line(error)})", fix)
            continue
        if not cells:
            continue
        if any("\0" in cell for cell in cells):
            zero = ConfigurationError("path", "a cell has a NUL, which no text has", "save the file as UTF-8 text")
            if not names:
                raise zero.at(f"line {line}")
            yield f"line {line}", zero
        elif not names:
            names = _header(cells)
        elif len(cells) != len(names):
            problem = f"{len(cells)} cells, and {len(names)} columns"
            yield f"line {line}", ConfigurationError("path", problem, "correct the row, or set `delimiter`")
        else:
            yield f"line {line}", {name: cell or EMPTY for name, cell in zip(names, cells, strict=True)}


def _header(names: list[str]) -> list[str]:
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError("path", f"the header has the column `{twice}` twice", "rename one")
    other = next((sign for sign in OTHER_DELIMITERS if len(names) == 1 and sign in names[0]), None)
    if other is not None:
        problem = f"the header has one column alone, `{readable(names[0])}`"
        raise ConfigurationError("delimiter", problem, f"set `delimiter: {other!r}`")
    return names


def delimiter_of(name: str) -> str:
    """Return the delimiter that the name of a file stands for: a tab for .tsv and .tab, else a comma."""
    return "\t" if {".tsv", ".tab"} & {f".{part}" for part in name.lower().split(".")[1:]} else ","
