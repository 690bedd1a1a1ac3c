"""From documents to packed rows, and from stored rows to the workers' batches in an order that timing cannot change."""

from continual.data.packing import Arrays
from continual.data.rows import ROW_COLUMNS, RowReader, column, fixed_column, row_facts, row_schema, rows_table
from continual.data.tokenise import prepare_rows

__all__ = [
    "ROW_COLUMNS",
    "Arrays",
    "RowReader",
    "column",
    "fixed_column",
    "prepare_rows",
    "row_facts",
    "row_schema",
    "rows_table",
]
