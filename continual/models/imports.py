"""Import transformers where threads may do so at one time."""

from typing import Any

from continual.errors.syntax import ALONE


def whole_transformers() -> Any:
    """Return the package transformers with all of its classes, when no other thread imports it any more.

    At the end of its import transformers puts another module in its own place, for which an import statement that has
    waited for that import does not look again (CPython 3.11): it gets a module without a class.
    """
    with ALONE:
        import transformers
    return transformers
