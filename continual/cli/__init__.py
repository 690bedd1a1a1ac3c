"""Command lines: arguments in, one call, exit code out."""
