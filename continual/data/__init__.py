"""From documents to packed rows, and from stored rows to the workers' batches in an order that timing cannot change."""
