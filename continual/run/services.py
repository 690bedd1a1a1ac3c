"""The services that mitigations use on the driver; what the store has is not made again."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from continual.config.schema import ModelSource, Sequence
from continual.contract.context import Context, StageRecord
from continual.contract.models import ModelRef
from continual.contract.requests import SampleRequest
from continual.contract.source import Source
from continual.contract.view import StageView
from continual.data.prepare import prepare_rows
from continual.errors import ConfigurationError
from continual.forgetting import ScoreLoss
from continual.ledger.folder import StageFolder
from continual.models import load_tokenizer, start_model
from continual.preflight.resources import scoring
from continual.run.feed import Feeds, SampleFeed, ScoreFeed
from continual.run.losses import Losses, unmeasured
from continual.sampling.pace import Pace
from continual.sampling.sample import Progress, sample_rows, sample_set, sampled_artefacts, sampler_identity
from continual.sampling.settings import SampleSettings
from continual.sampling.start import bos_note, bos_start, end_tokens, task_starts, template_start
from continual.sampling.wanted import Wanted
from continual.scoring import fisher_artefact, score_growing, score_inputs, score_rows
from continual.show.progress import Step
from continual.show.terminal import Terminal
from continual.store import Artefact, Store


@dataclass
class StageContext(Context):
    """The contract's Context for one stage. `used` collects the sample sets, and how many samples of each are used.

    `streamed`: the folder of the stage whose training reads rows while `feeds` fill them; None: rows are complete when
    they are returned. `finish` waits for the feeds. `measured_losses` evaluates a model as the one that continues is.
    """

    sequence: Sequence
    view: StageView
    store: Store
    terminal: Terminal
    start: ModelRef
    stage_start: ModelRef
    earlier: list[StageRecord]
    rows: Artefact
    streamed: StageFolder | None = None
    feeds: Feeds = field(default_factory=Feeds)
    used: dict[Artefact, int] = field(default_factory=dict)
    measured_losses: Losses = unmeasured

    @property
    def task_rows(self) -> Artefact:
        return self.rows

    @property
    def max_failed(self) -> float:
        return self.sequence.generate.max_failed

    def sampler(self) -> dict[str, Any]:
        return sampler_identity(self.sequence.model.dtype, self.sequence.generate)

    def sample(self, request: SampleRequest) -> Artefact:
        request = request.resolved(self.view)
        settings = self._settings(request, request.max_tokens or 0, self.start)
        dtype, config = self.sequence.model.dtype, self.sequence.generate
        wanted = Wanted(self.view.row_tokens, request.count, request.rows, request.held_out)
        size = str(request.count) if request.rows is None else f"{request.rows + request.held_out} rows"
        what = (self.store, request.model, dtype, settings, config, wanted)
        rows, samples = sampled_artefacts(*what)
        with self.step(f"sample {size} from {request.start}", "starting the engine, making the first samples") as step:
            if request.step_rows and self.streamed and not rows.complete:
                pace = self._pace(self.streamed, request)
                feed = SampleFeed(rows, samples, lambda progress, stop: sample_rows(*what, progress, stop, pace))
                self.feeds.start(feed, step).wait_until_usable(step)
                step.note("the first rows are there, the others follow while the stage trains")
                return rows
            if not rows.complete:
                self.feeds.wait_for_kind(SampleFeed, step)
            sample_rows(*what, _counting_tokens(step))
            step.note(self._filled(rows, samples))
        return rows

    def _pace(self, files: StageFolder, request: SampleRequest) -> Pace | None:
        ahead, every = self.sequence.generate.ahead, self.sequence.train.log_every
        return Pace(files.metrics, files.fed, request.step_rows, ahead, every) if ahead else None

    def _filled(self, rows: Artefact, samples: Artefact) -> str:
        """Record what complete rows use of the samples; return it in words."""
        facts = rows.manifest()
        self.use(samples, facts["count"])
        return f"{facts['count']} samples in {facts['counts']['rows']} rows, {facts['held_out']} of them held out"

    def finish(self) -> None:
        """Wait for the rows and columns that still come, and record what the rows use."""
        for feed in self.feeds.all:
            with self.step(feed.rest, feed.waits_for) as step:
                feed.wait(step)
                if isinstance(feed, SampleFeed):
                    step.note(self._filled(feed.artefact, feed.samples))
                else:
                    step.note(f"{feed.artefact.manifest()['counts']['rows']} rows are scored")

    def generate(self, request: SampleRequest, title: str = "generate") -> Artefact:
        request = request.resolved(self.view)
        longest = max(map(len, request.prompts)) + (request.new_tokens or 0)
        positions = self.view.facts(request.model.path).positions
        if positions is not None and longest > positions:
            length = f"a prompt and {request.new_tokens} sampled tokens are {longest} tokens"
            problem = f"{length}, and {request.model.path} holds {positions}"
            raise ConfigurationError("", problem, "sample fewer tokens")
        settings = self._settings(request, longest, request.model)
        dtype, config = self.sequence.model.dtype, self.sequence.generate
        with self.step(title, "starting the engine, making the first samples") as step:
            self.feeds.wait_for_kind(SampleFeed, step)
            counted, count = _counting_tokens(step), request.count or 0
            samples = sample_set(self.store, request.model, dtype, settings, config, count, counted)
        self.use(samples, count)
        return samples

    def use(self, samples: Artefact, count: int) -> None:
        self.used[samples] = max(count, self.used.get(samples, 0))

    def score(
        self,
        model: ModelRef,
        rows: Artefact,
        *,
        what: Literal["nll", "topk", "fisher"] = "nll",
        top_k: int = 64,
        documents: int = 256,
        seed: int = 0,
        while_training: bool = False,
    ) -> Artefact:
        generate = self.sequence.generate
        with self.step(f"score rows, {what}", "loading the model, scoring the first shard") as step:
            if what == "fisher":
                self.feeds.wait_for_rows(rows, step)
                return fisher_artefact(self.store, model, rows, generate, documents, seed)
            made_of = (model, rows, what, self.sequence.model.dtype)
            columns = self.store.artefact("columns", score_inputs(*made_of, top_k))
            streamed = while_training and self.streamed and scoring(self.sequence)
            if streamed and not (rows.complete and columns.complete):
                how = (self.store, *made_of, generate, top_k)
                feed = ScoreFeed(columns, rows, lambda stop: score_growing(*how, stop))
                self.feeds.start(feed, step).wait_until_usable(step)
                step.note("each shard is scored when its rows are there, while the stage trains")
                return columns
            self.feeds.wait_for_rows(rows, step)
            return score_rows(self.store, *made_of, generate, top_k, step.update)

    def losses(self, model: ModelRef, title: str = "evaluate") -> dict[str, ScoreLoss]:
        return self.measured_losses(model, partial(self.step, title, "scoring"))

    def read(self, source: Source) -> Artefact:
        return prepare_rows(self.store, source, self.start.path, self.view.row_tokens)

    def model(self, source: str) -> ModelRef:
        return start_model(self.store, ModelSource.model_validate({"type": "pretrained", "source": source}), 0)

    def step(self, title: str, waits_for: str = "") -> Step:
        return self.terminal.step(f"stage {self.view.number} {self.view.name}: {title}", waits_for)

    def _settings(self, request: SampleRequest, tokens: int, tokenizer: ModelRef) -> SampleSettings:
        """Return the settings of a resolved request: its start as token ids, and the ids that end a sample."""
        chat = request.start in ("template", "prompts")
        return SampleSettings(
            starts=tuple(tuple(start) for start in request.prompts or self._starts(request)),
            tokens=tokens,
            stop=() if request.run_on else self._stop(tokenizer, chat),
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed or 0,
            new_tokens=request.new_tokens,
        )

    def _starts(self, request: SampleRequest) -> list[list[int]]:
        tokenizer = load_tokenizer(self.start.path)
        if request.start == "tasks":
            return task_starts(tokenizer, list(request.start_tokens))
        if request.start == "template":
            return [template_start(tokenizer)[0]]
        ids, text = bos_start(tokenizer, _settings_of(self.start, "config.json"))
        for note in bos_note(tokenizer, text):
            self.terminal.line(f"  {note}")
        return [ids]

    def _stop(self, model: ModelRef, chat: bool) -> tuple[int, ...]:
        return end_tokens(load_tokenizer(model.path), _settings_of(model, "generation_config.json"), chat)


def _settings_of(model: ModelRef, name: str) -> dict[str, Any]:
    path = Path(model.path) / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _counting_tokens(step: Step) -> Progress:
    """Return a function that shows samples done, samples in all and tokens done on the step's line."""
    return lambda made: step.update(made.done, made.wanted, f"{made.tokens} tokens")
