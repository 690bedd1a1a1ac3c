"""A function of the user's that yields documents."""

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from continual.config.references import attempt, call, module_file
from continual.contract.base import Version
from continual.contract.columns import kind_of
from continual.contract.source import Document, Source
from continual.errors import ConfigurationError

COUNT_SECONDS = 0.5
"""How long the function is run to count what it yields."""
ONE_DICT = "yield one dict per document"


class PythonSource(Source):
    """A function that yields one dict per document: `text`, `prompt` and `completion`, or `messages`."""

    renamed: ClassVar[dict[str, str]] = {"rows": "function"}
    self_describing: ClassVar[bool] = True
    documents_key: ClassVar[str] = "function"

    type: Literal["python"] = "python"
    function: str = Field(description='"module:function" that yields one dict per document')
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the function")
    version: Version = Field(
        None,
        exclude_if=lambda given: given is None,
        description="yours: change it when what the function reads by itself (network, environment, paths that it "
        "computes) has changed, as its files do not show that",
    )

    @field_validator("function")
    @classmethod
    def _reference(cls, function: str) -> str:
        if ":" not in function:
            raise ValueError(f'`{function}` does not name a function; write "module:function"')
        return function

    @property
    def title(self) -> str:
        return self.function

    def parts(self) -> list[str]:
        return [""]

    def read(self, part: str) -> Iterator[tuple[str, Document | ConfigurationError]]:
        yielded = call("function", self.function, self.arguments)
        documents = attempt("function", self.function, lambda: iter(yielded))
        end = object()
        for number in itertools.count(1):
            try:
                document = attempt("function", self.function, lambda: next(documents, end))
            except ConfigurationError as error:
                raise error.at(f"document {number}") from error
            if document is end and number == 1:
                raise ConfigurationError("function", f"`{self.function}` yields nothing", ONE_DICT)
            if document is end:
                return
            if not isinstance(document, Mapping):
                problem = f"`{self.function}` yields {kind_of(document)}"
                document = ConfigurationError("function", problem, ONE_DICT)
            yield f"document {number}", document

    def count(self) -> int | None:
        until = time.monotonic() + COUNT_SECONDS
        count = 0
        for _ in itertools.islice(self.read(""), self.limit):
            count += 1
            if count % 256 == 0 and time.monotonic() > until:
                return None
        return count

    def identity(self) -> dict[str, Any]:
        from continual.store.code import module_code, with_content
        from continual.store.files import hash_file

        file = module_file(self.function)
        arguments = with_content("arguments", self.arguments, self.version, file)
        code = module_code(file, self.function.partition(":")[0])
        return {**self.model_dump(), "arguments": arguments, "module": hash_file(file), **code}
