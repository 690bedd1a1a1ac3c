"""From documents to packed rows, and from stored rows to the workers' batches in an order that timing cannot change."""

from continual.data.rows import RowReader, row_schema, rows_table
from continual.data.tokenise import prepare_rows

__all__ = ["RowReader", "prepare_rows", "row_schema", "rows_table"]
