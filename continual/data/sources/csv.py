"""Tables of text: csv and tsv."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Literal

from pydantic import Field

from continual.contract.source import Document
from continual.data.sources.csv_text import csv_documents, delimiter_of
from continual.data.sources.files import ColumnSource, StreamSource
from continual.errors import ConfigurationError


class CsvSource(ColumnSource, StreamSource):
    """Tables of text, csv or tsv, plain or compressed: one document per row, whose cells are all text."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".tab")

    type: Literal["csv"] = "csv"
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="null: a tab for .tsv, else a comma")
    header: list[str] | None = Field(None, min_length=1, description="the columns of files whose first row is data")
    quoted: bool = Field(True, description="whether cells may stand in double quotes")

    def parse(self, data: IO[bytes], file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        return csv_documents(data, self.delimiter or delimiter_of(file.name), self.header, self.quoted)
