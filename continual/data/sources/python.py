"""A function of the user's that yields documents."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from continual.config.references import attempt, call, load_function, module_file
from continual.config.yaml_text import kind_name
from continual.contract.source import Document, Source
from continual.data.sources.files import READ_CPUS
from continual.errors import ConfigurationError

if TYPE_CHECKING:
    import ray.data

COUNT_SECONDS = 0.5
"""How long the function is run to count what it yields."""


class PythonSource(Source):
    """A function that yields one dict per document: `text`, `prompt` and `completion`, or `messages`."""

    renamed: ClassVar[dict[str, str]] = {"rows": "function"}
    self_describing: ClassVar[bool] = True

    type: Literal["python"] = "python"
    function: str = Field(description='"module:function" that yields one dict per document')
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the function")

    @field_validator("function")
    @classmethod
    def _reference(cls, function: str) -> str:
        if ":" not in function:
            raise ValueError(f'`{function}` does not name a function; write "module:function"')
        return function

    @property
    def title(self) -> str:
        return self.function

    def option_of(self, field: str) -> str:
        return super().option_of(field) or "function"

    def first(self, key: str, count: int) -> list[Document]:
        key = f"{key}.function"
        yielded = call(key, self.function, self.arguments)
        documents = attempt(key, self.function, lambda: list(itertools.islice(iter(yielded), count)))
        if not documents:
            raise ConfigurationError(key, f"`{self.function}` yields nothing", "yield one dict per document")
        for document in documents:
            if not isinstance(document, dict):
                problem = f"`{self.function}` yields a {kind_name(document)}"
                raise ConfigurationError(key, problem, "yield one dict per document")
        return list(documents)

    def count(self) -> int | None:
        until = time.monotonic() + COUNT_SECONDS
        count = 0
        for _ in itertools.islice(iter(call("data.function", self.function, self.arguments)), self.limit):
            count += 1
            if count % 256 == 0 and time.monotonic() > until:
                return None
        return count

    def identity(self) -> dict[str, Any]:
        from continual.store import hash_file

        return {**self.model_dump(), "module": hash_file(module_file(self.function))}

    def documents(self) -> "ray.data.Dataset":
        import ray.data

        return ray.data.range(1).flat_map(self._generate, num_cpus=READ_CPUS)

    def _generate(self, row: dict[str, Any]) -> Iterator[dict[str, str]]:
        for document in load_function("", self.function)(**self.arguments):
            yield {"item": json.dumps(document)}
