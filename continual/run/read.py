"""Read the data of a run, before its first stage trains: a wrong line in the last stage's file costs no stage."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from continual.config.schema import Sequence
from continual.contract.source import Source
from continual.data.prepare import prepare_rows, rows_inputs
from continual.data.tally import COUNTED, losses, skipped
from continual.errors import ConfigurationError, fingerprinted
from continual.ledger.ledger import Events, Ledger
from continual.preflight.stages import acting
from continual.show.terminal import Terminal
from continual.store import Artefact, Store, digest

FIX = "put that back, choose a new `name`, or give --fresh to begin the run again"


class Named(NamedTuple):
    """A data source of a sequence: its key in the configuration, its stage (0 for texts), its name for the terminal.

    That is the name of the text, `task`, or the mitigation's label.
    """

    key: str
    stage: int
    name: str
    source: Source


def sources(sequence: Sequence) -> Iterator[Named]:
    """Yield the data sources of a sequence: texts, the stages' own, and what mitigations read."""
    for number, text in enumerate(sequence.evaluate.texts):
        yield Named(f"evaluate.texts.{number}.data", 0, text.name, text.data)
    for stage, declared in enumerate(sequence.stages, 1):
        yield Named(f"stages.{stage - 1}.data", stage, "task", declared.data)
        for key, mitigation in acting(sequence, stage):
            for name, source in mitigation.data_sources().items():
                yield Named(f"{key}.{name}", stage, mitigation.label, source)


def file_state(source: Source) -> str | None:
    """Return what changes whenever a file of the source is written; None if more than files decides its documents."""
    stats = [(path, path.stat()) for path in source.watched()]
    times = [[str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for path, s in stats]
    return digest(times) if times else None


def changed_sources(
    sequence: Sequence, ledger: Events, store: Store, tokenizer: str, stages: Collection[int] | None = None
) -> list[Named]:
    """Return the sources, of all `stages` or of some, that would give other rows now than the run has read."""
    return [
        named
        for named in sources(sequence)
        if (stages is None or named.stage in stages)
        and (read := ledger.find("read", key=named.key))
        and not _same(named.source, read, sequence, store, tokenizer)
    ]


def _same(source: Source, read: dict[str, Any], sequence: Sequence, store: Store, tokenizer: str) -> bool:
    state = file_state(source)
    if state is not None and state == read.get("state"):
        return True
    rows = Artefact("rows", str(read["rows"]), str(store.root))
    if rows.complete:  # says what was read, whatever has become of the tokenizer and of this code since
        return digest(fingerprinted(rows.manifest()["inputs"]["source"])) == digest(fingerprinted(source.identity()))
    inputs = rows_inputs(source, tokenizer, sequence.train.row_tokens)
    return store.artefact("rows", inputs).hash == rows.hash


def changed_note(named: Named, ledger: Events) -> str:
    """Return the note that a source has changed and that the run goes on with its new rows.

    Raises ConfigurationError for a text: its scores would not compare. A stage whose training has begun is refused when
    it is prepared.
    """
    change = "has changed since this run began (files, code or versions)"
    if named.stage == 0 and ledger.find("scored"):
        raise ConfigurationError(named.key, f"what is measured {change}", FIX)
    return f"`{named.key}` {change}"


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
        left = set(self._left())
        for named in sources(self.sequence):
            if named.stage == 0:
                rows = self.texts[named.name] = self._rows(named, f"start: read text {named.name}")
                if rows.manifest().get("origins") == 1:
                    one = f"the text `{named.name}` is one document: the error of its loss cannot be told; give several"
                    self.terminal.line(f"  {one}")
            elif named.stage in left:
                stage = self.sequence.stages[named.stage - 1].name
                rows = self._rows(named, f"stage {named.stage} {stage}: read {named.name}")
                if named.key == f"stages.{named.stage - 1}.data":
                    self.stages[named.stage] = rows
            elif left and named.key == f"stages.{named.stage - 1}.data" and self._damaged(named):
                self._rows(named, f"stage {named.stage}: read {named.name} again")
        # What is left was read a moment ago, and has said so.
        done = set(range(1, len(self.sequence.stages) + 1)) - left
        for named in changed_sources(self.sequence, self.ledger, self.store, self.tokenizer, done):
            self._say(named)

    def _damaged(self, named: Named) -> bool:
        """Return whether the rows of a finished stage, which later ones may replay, are lost and can be made again."""
        done = self.ledger.find("stage_done", stage=named.stage)
        rows = Artefact("rows", done["rows"] if done else "", str(self.store.root))
        if done is None or (rows.complete and not rows.damage()):
            return False
        inputs = rows_inputs(named.source, self.tokenizer, self.sequence.train.row_tokens)
        return self.store.artefact("rows", inputs).hash == rows.hash

    def _left(self) -> Iterator[int]:
        return (n for n in range(1, len(self.sequence.stages) + 1) if not self.ledger.find("stage_done", stage=n))

    def _rows(self, named: Named, title: str) -> Artefact:
        key, source = named.key, named.source
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
        read, state = self.ledger.find("read", key=key), file_state(source)
        if read and read["rows"] != rows.hash:
            self._say(named)
        if not read or (read["rows"], read.get("state")) != (rows.hash, state):
            kept = {name: value for name, value in manifest.items() if name in COUNTED}
            self.ledger.add(
                "read", key=key, stage=named.stage, source=source.title, rows=rows.hash, state=state, **kept
            )
        return rows

    def _say(self, named: Named) -> None:
        self.terminal.line(f"  note: {changed_note(named, self.ledger)}")
