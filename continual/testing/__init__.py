"""Checks that an outside package can run on its own method."""
