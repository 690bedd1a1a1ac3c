"""Arithmetic documents of three lengths, so that rows and ranks hold unequal numbers of tokens."""

from collections.abc import Iterator

from benchmarks.arithmetic.tasks import rows as arithmetic


def rows() -> Iterator[dict[str, str]]:
    for triple in zip(
        arithmetic("reversal", count=150, digits=2, held_out=10),
        arithmetic("add", count=150, digits=3),
        arithmetic("sort", count=150, digits=4),
        strict=True,
    ):
        yield from triple
