"""The services that mitigations use on the driver; what is in the store is not made again."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from continual.config.schema import ModelSource, Sequence
from continual.contract.mitigation import ModelRef, StageRecord
from continual.contract.source import Source
from continual.data.tokenise import prepare_rows
from continual.errors import ConfigurationError
from continual.models import load_tokenizer
from continual.preflight.model_facts import read_model
from continual.sampling import SampleSettings, bos_start, sample_rows, sample_set, task_starts, template_start
from continual.sampling.start import end_tokens
from continual.scoring import fisher_artefact, score_rows
from continual.show.progress import Step
from continual.show.terminal import Terminal
from continual.store import Artefact, Store


@dataclass
class StageContext:
    """The contract's Context for one stage. `used` collects the sample sets, for the record of tokens."""

    sequence: Sequence
    stage: int
    store: Store
    terminal: Terminal
    start: ModelRef
    stage_start: ModelRef
    earlier: list[StageRecord]
    task_rows: Artefact
    steps: int
    used: list[Artefact] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stage_name(self) -> str:
        return self.sequence.stages[self.stage - 1].name

    @property
    def seed(self) -> int:
        return self.sequence.seed

    def sample(
        self,
        model: ModelRef,
        *,
        count: int,
        start: str = "bos",
        start_tokens: list[str] | None = None,
        tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        run_on: bool = False,
        seed: int | None = None,
        prompts: list[list[int]] | None = None,
    ) -> Artefact:
        """Rows of `count` samples from `model`.

        `start` is `bos`, `template`, `tasks` (any of `start_tokens`) or `prompts` (token ids that are used in turn).
        `tokens` is the longest sample, start included (default: a row). Samples stop at end-of-text unless `run_on`.
        """
        settings = SampleSettings(
            starts=tuple(tuple(one) for one in prompts or self._starts(start, start_tokens or [])),
            count=count,
            tokens=tokens or self.sequence.train.row_tokens,
            stop=() if run_on else self._stop(self.start, chat=start in ("template", "prompts")),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=self.seed if seed is None else seed,
        )
        begun = time.monotonic()
        with self.terminal.step(f"stage {self.stage} {self.stage_name}: sample {count} from {start}") as step:
            rows, samples = sample_rows(
                self.store,
                model,
                self.sequence.model.dtype,
                settings,
                self.sequence.generate,
                self.sequence.train.row_tokens,
                lambda done, total, made: step.update(done, total, f"{made} tokens"),
            )
        self.used.append(samples)
        self.seconds["sample"] = self.seconds.get("sample", 0.0) + time.monotonic() - begun
        return rows

    def generate(
        self,
        model: ModelRef,
        prompts: list[list[int]],
        *,
        tokens: int,
        samples: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        title: str = "generate",
    ) -> Artefact:
        """What `model` says after each prompt, `samples` times: a samples artefact, not packed into rows.

        `prompts` are ids of the model's own tokenizer, whose end tokens end a sample; at most `tokens` tokens are
        sampled. Sample i, column `number`, is for prompt i mod len(prompts). Raises ConfigurationError where the
        longest prompt and `tokens` do not fit the model's positions.
        """
        longest = max(map(len, prompts)) + tokens
        positions = read_model(ModelSource(type="pretrained", source=model.path))[0].positions  # type: ignore[call-arg]
        if positions is not None and longest > positions:
            problem = f"a prompt and {tokens} sampled tokens are {longest} tokens, and {model.path} holds {positions}"
            raise ConfigurationError("", problem, "sample fewer tokens")
        settings = SampleSettings(
            starts=tuple(map(tuple, prompts)),
            count=samples * len(prompts),
            tokens=longest,
            stop=self._stop(model, chat=True),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=self.seed if seed is None else seed,
            new_tokens=tokens,
        )
        begun = time.monotonic()
        with self.step(title) as step:
            found = sample_set(
                self.store,
                model,
                self.sequence.model.dtype,
                settings,
                self.sequence.generate,
                lambda done, total, made: step.update(done, total, f"{made} tokens"),
            )
        self.used.append(found)
        self.seconds["sample"] = self.seconds.get("sample", 0.0) + time.monotonic() - begun
        return found

    def use(self, samples: Artefact) -> None:
        """Put a samples artefact on the stage's record of tokens."""
        self.used.append(samples)

    def step(self, title: str) -> Step:
        """A line on the user's terminal for something long."""
        return self.terminal.step(f"stage {self.stage} {self.stage_name}: {title}")

    def _starts(self, start: str, tokens: list[str]) -> list[list[int]]:
        tokenizer = load_tokenizer(self.start.path)
        if start == "tasks":
            return task_starts(tokenizer, tokens)
        ids, text = template_start(tokenizer) if start == "template" else bos_start(tokenizer)
        if start == "bos" and tokenizer.bos_token_id is None:
            self.terminal.line(f"  the tokenizer has no BOS: samples begin with its end-of-text token {text}")
        return [ids]

    def _stop(self, model: ModelRef, chat: bool) -> tuple[int, ...]:
        path = Path(model.path) / "generation_config.json"
        generation = json.loads(path.read_text()) if path.is_file() else {}
        return end_tokens(load_tokenizer(model.path), generation, chat)

    def score(
        self,
        model: ModelRef,
        rows: Artefact,
        *,
        what: Literal["nll", "topk", "fisher"] = "nll",
        top_k: int = 64,
        sequences: int = 256,
        seed: int = 0,
    ) -> Artefact:
        """What a frozen model says about `rows`: columns for every token, shard by shard as the rows are, or F.

        `nll`: column `nll`, nats of token t given its document before t. `topk`: columns `top_ids` and `top_logprobs`,
        the model's `top_k` likeliest tokens there; this is what a cached teacher is. `fisher`: the diagonal Fisher
        information on `sequences` documents, one tensor per parameter; labels are drawn from the model under `seed`.
        """
        begun = time.monotonic()
        generate, dtype = self.sequence.generate, self.sequence.model.dtype
        with self.terminal.step(f"stage {self.stage} {self.stage_name}: score rows, {what}") as step:
            if what == "fisher":
                found = fisher_artefact(self.store, model, rows, generate, sequences, seed)
            else:
                found = score_rows(self.store, model, rows, what, dtype, generate, top_k, step.update)
        self.seconds["score"] = self.seconds.get("score", 0.0) + time.monotonic() - begun
        return found

    def read(self, source: Source) -> Artefact:
        """Packed rows of a data source, with the start model's tokenizer."""
        begun = time.monotonic()
        rows = prepare_rows(self.store, source, self.start.path, self.sequence.train.row_tokens)
        self.seconds["data"] = self.seconds.get("data", 0.0) + time.monotonic() - begun
        return rows
