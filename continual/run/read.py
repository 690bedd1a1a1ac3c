"""Read the data of a run, before its first stage trains: a wrong line in the last stage's file costs no stage."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from continual.config.schema import Sequence
from continual.contract.source import Source
from continual.data.prepare import prepare_rows
from continual.data.tally import COUNTED, losses, skipped
from continual.errors import ConfigurationError
from continual.ledger.ledger import Ledger
from continual.preflight.stages import acting
from continual.show.terminal import Terminal
from continual.store import Artefact, Store


@dataclass
class Data:
    """Reads the sources of a sequence under a tokenizer, each once, and says what became of their documents.

    Attributes:
        texts: Rows of the texts that are measured, by name.
        stages: Rows of the stages that are left, by number.
    """

    sequence: Sequence
    store: Store
    ledger: Ledger
    terminal: Terminal
    tokenizer: str
    """The model folder with the tokenizer."""
    texts: dict[str, Artefact] = field(default_factory=dict)
    stages: dict[int, Artefact] = field(default_factory=dict)

    def read(self) -> None:
        """Read the texts, the data of all stages that are not done, and what mitigations read in these.

        Raises:
            ConfigurationError: A source or a document of it cannot be used, with its key, file and line.
        """
        for number, text in enumerate(self.sequence.evaluate.texts):
            title = f"start: read text {text.name}"
            rows = self.texts[text.name] = self._rows(f"evaluate.texts.{number}.data", 0, title, text.data)
            if rows.manifest().get("origins") == 1:
                self.terminal.line(
                    f"  the text `{text.name}` is one document: the error of its loss cannot be told; give several"
                )
        for stage in self._left():
            declared = self.sequence.stages[stage - 1]
            title = f"stage {stage} {declared.name}: read"
            self.stages[stage] = self._rows(f"stages.{stage - 1}.data", stage, f"{title} task", declared.data)
            for key, mitigation in acting(self.sequence, stage):
                for name, source in mitigation.data_sources().items():
                    self._rows(f"{key}.{name}", stage, f"{title} {mitigation.label}", source)

    def _left(self) -> Iterator[int]:
        return (n for n in range(1, len(self.sequence.stages) + 1) if not self.ledger.find("stage_done", stage=n))

    def _rows(self, key: str, stage: int, title: str, source: Source) -> Artefact:
        with self.terminal.step(title, "starting the readers") as step:
            try:
                progress = partial(step.update, extra="documents")
                rows = prepare_rows(self.store, source, self.tokenizer, self.sequence.train.row_tokens, progress)
            except ConfigurationError as error:
                raise error.within(key) from error
            manifest = rows.manifest()
            counts = manifest["counts"]
            facts = ", ".join(
                part for part in (f"{counts['rows']} rows, {counts['tokens']} tokens", losses(manifest)) if part
            )
            step.note(facts)
        for reason in skipped(manifest):
            self.terminal.line(f"  {reason}")
        if not self.ledger.find("read", key=key, rows=rows.hash):
            kept = {name: value for name, value in manifest.items() if name in COUNTED}
            self.ledger.add("read", key=key, stage=stage, source=source.title, rows=rows.hash, **kept)
        return rows
