"""How alike the texts of tasks and upstream documents are, by their words and by what the start model makes of them."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from continual.associations import analysis
from continual.associations.matrix import Associations
from continual.associations.spec import LoadedAssociate
from continual.contract.models import ModelRef
from continual.data.chosen import numbered, words_of
from continual.errors import ConfigurationError, describe, redacted
from continual.ledger.ledger import read_events
from continual.ledger.places import placed
from continual.preflight.delivery import check_placement
from continual.preflight.placement import placed as with_gpus
from continual.scoring.representations import cut_texts, read_representations, represent, representations
from continual.show.terminal import Terminal
from continual.store import Artefact, Store

MOST_WORDS = 200
"""Documents of a task that stand for it where texts are compared."""
NO_TEXT = "not computed, as the documents of a task of lm-eval are no text"
NOT_MEASURED = "they are not measured yet; run the same command again"
Found = dict[str, float | None] | str
"""Both correlations, or why there are none."""


@dataclass(frozen=True)
class Texts:
    """What is compared: the first MOST_WORDS documents of every task, and the upstream documents [N]."""

    tasks: Mapping[str, list[str]]
    documents: list[str]


@dataclass
class Likeness:
    """The likeness of the texts that a matrix is about; `failure` says why representations could not be measured."""

    matrix: Associations
    loaded: LoadedAssociate
    failure: str = field(default=NOT_MEASURED, init=False)

    @cached_property
    def texts(self) -> Texts | None:
        """The texts; None if the matrix is about a task of lm-eval."""
        sequence, upstream = self.loaded.base.sequence, self.loaded.associate.upstream
        sources = {text.name: text.data for text in sequence.evaluate.texts}
        if upstream not in sources:
            return None
        words = {str(number): words_of(example) for number, example in numbered(sources[upstream])}
        of_task = {}
        for stage in sequence.stages:
            of_task[stage.name] = [words_of(example) for _, example in islice(numbered(stage.data), MOST_WORDS)]
        return Texts(of_task, [words[document] for document in self.matrix.documents])

    @cached_property
    def store(self) -> Store:
        """The store of the tasks' runs."""
        return Store(Path(self.loaded.base.sequence.storage) / "store", maker=self.loaded.associate.name)

    def lacks(self) -> bool:
        """Return whether representations are still to be measured."""
        return self.texts is not None and any(not place.complete or place.damage() for place in self._places)

    def measure(self, resources: Mapping[str, float], terminal: Terminal) -> None:
        """Measure what is lacking in a cluster with these resources; if that fails, say why, here and in the results.

        One process does it, with the GPUs of one that evaluates.
        """
        with terminal.step("likeness of texts", "loading the start model") as step:
            try:
                self._measure(resources, lambda done, shards: step.update(done, shards, "shards of texts"))
            except Exception as error:
                traceback.print_exc()
                self.failure = redacted(describe(error))
                step.note(f"not measured: {self.failure}")

    def _measure(self, resources: Mapping[str, float], progress: Callable[[int, int], None]) -> None:
        from continual.run.found import same_start
        from continual.run.sequence import cores

        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        sequence, _ = with_gpus(self.loaded.base.sequence, cpus, gpus)
        check_placement(sequence, cpus, gpus)
        model = same_start(sequence, self.store, self._start_model())
        row_tokens, dtype = sequence.train.row_tokens, sequence.model.dtype
        gpus = sequence.evaluate.reserved_gpus
        represent(self.store, model, self._lists, row_tokens, dtype, gpus, cores(), progress)

    def _start_model(self) -> ModelRef:
        """Return the model of the matrix where the first of its runs has found it."""
        storage = Path(self.loaded.base.sequence.storage)
        run = next(iter(self.matrix.facts["tasks"].values()))["run"]
        path = read_events(storage / run, "start_model")[-1]["path"]
        return ModelRef(placed(path, storage), self.matrix.facts["start_model"])

    @property
    def _lists(self) -> list[list[str]]:
        """The texts that are represented: the upstream documents, and those of every task."""
        return [self.texts.documents, *self.texts.tasks.values()] if self.texts else []

    @cached_property
    def _places(self) -> list[Artefact]:
        """Where the representations of each of the lists are stored."""
        sequence, start = self.loaded.base.sequence, self.matrix.facts["start_model"]
        row_tokens, dtype = sequence.train.row_tokens, sequence.model.dtype
        return [representations(self.store, start, texts, row_tokens, dtype) for texts in self._lists]

    def of_words(self) -> Found:
        """Return the correlation of the changes with the likeness of words."""
        if self.texts is None:
            return NO_TEXT
        try:
            return analysis.similarity(self.matrix, self.texts.tasks, self.texts.documents)
        except ConfigurationError as error:
            return f"not computed: {error.problem}"

    def of_representations(self) -> Found:
        """Return the correlation of the changes with the likeness of the start model's representations."""
        if self.texts is None:
            return NO_TEXT
        if self.lacks():
            return f"not computed: {self.failure}"
        upstream, *of_tasks = (read_representations(place) for place in self._places)
        of_task: dict[str, np.ndarray] = dict(zip(self.texts.tasks, of_tasks, strict=True))
        try:
            return analysis.similarity_of_representations(self.matrix, of_task, upstream)
        except ConfigurationError as error:
            return f"not computed: {error.problem}"

    def represented(self) -> dict[str, int] | None:
        """Return how many texts are represented, how many of them are cut, and to how many tokens; None if none are."""
        if self.texts is None or self.lacks():
            return None
        texts = sum(map(len, self._lists))
        cut = sum(map(cut_texts, self._places))
        return {"texts": texts, "cut": cut, "tokens": self.loaded.base.sequence.train.row_tokens}
