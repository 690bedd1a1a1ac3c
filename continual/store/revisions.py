"""The revision of every kind of artefact: part of its address, raised when the same inputs give another result.

A test compares the code behind each kind with the code of its last revision, so that nobody forgets to decide.
"""

REVISIONS = {
    "columns": 1,
    "fisher": 1,
    "models": 1,
    "pairs": 3,
    "replies": 1,
    "representations": 1,
    "rows": 3,
    "samples": 2,
    "scores": 4,
}
"""Kinds of other packages have none: their inputs say everything."""
