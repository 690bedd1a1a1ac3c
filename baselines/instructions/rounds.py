"""The rounds of instruction synthesis: instructions, answers, scores, and the best answer to each instruction."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from baselines.instructions.committee import best, judge_prompt, mean_score, parse_score
from baselines.instructions.duplicates import first_of_each
from baselines.instructions.endpoint import ask_endpoint
from baselines.instructions.generators import Ask, Reply, ask_local, sample_replies
from baselines.instructions.options import SynthesisOptions
from continual.api import ConfigurationError, Context, ModelRef, load_tokenizer, template_start

PART = 4096
"""Instructions that are answered and judged together: bounds what the driver holds of prompts and replies."""
COUNTS = (
    "sampled", "failed", "cut", "empty", "duplicates", "near_duplicates", "instructions",
    "candidates", "failed_answers", "cut_answers", "empty_answers",
    "judgements", "failed_judgements", "unparsable", "unscored", "unanswered", "below_min_score", "kept",
)  # fmt: skip
"""What the manifest counts. Of `sampled` instructions `failed`, `cut`, `empty`, `duplicates` and `near_duplicates` are
dropped and `instructions` are left; of these `unanswered` and `below_min_score` are dropped and `kept` are left."""


@dataclass(frozen=True)
class Candidate:
    """An answer to instruction `place` of a part by generator `generator`, both counted from 0."""

    place: int
    generator: int
    text: str


@dataclass
class Rounds:
    """One synthesis.

    `models`: the generators' models, None for endpoints; `sampled`: instructions after every round, each of which asks
    about those that it adds; `illegible`: unparsable scores by judge; `samples`: how many
    were made or found, by hash of their set.
    """

    ctx: Context
    options: SynthesisOptions
    models: list[ModelRef | None]
    sampled: tuple[int, ...]
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTS, 0)))
    illegible: list[int] = field(init=False)
    samples: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.illegible = [0] * len(self.models)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the kept pairs (`messages`, `score`, `generator`) in their instructions' order, and what was counted.

        Raises ConfigurationError when none is left.
        """
        instructions = self._instructions()
        pairs: list[dict[str, Any]] = []
        for first, end in self._parts([number for number, _ in instructions]):
            part = [text for _, text in instructions[first:end]]
            where = f" ({first} to {end})" if len(part) < len(instructions) else ""
            candidates = self._candidates(part, where)
            pairs += self._kept(part, candidates, self._means(part, candidates, where))
        counts = self.counts
        with self.ctx.step("best answers") as step:
            of = f"{counts['kept']} of {counts['instructions']} instructions kept ({counts['sampled']} sampled)"
            step.note(f"{of}, {counts['unparsable']} of {counts['judgements']} scores unparsable")
        if not pairs:
            seen = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
            raise ConfigurationError("", f"no instruction has an answer with a score ({seen})", "use other generators")
        by = Counter(pair["generator"] for pair in pairs)
        kept_by = [by[number] for number in range(len(self.models))]
        return pairs, {**counts, "kept_by": kept_by, "unparsable_by": self.illegible, "samples": self.samples}

    def _parts(self, numbers: list[int]) -> Iterator[tuple[int, int]]:
        """Yield first and end of the instructions that are asked about together: of one round, and no more than PART.

        So what an earlier round has asked is found in the store.
        """
        ends = [0, *np.searchsorted(numbers, self.sampled).tolist()]
        for begin, end in pairwise(ends):
            for first in range(begin, end, PART):
                yield first, min(end, first + PART)

    def _instructions(self) -> list[tuple[int, str]]:
        """Return what the model says after its chat template where a user would speak, without duplicates, by number
        of the sample.
        """
        ctx, options, counts = self.ctx, self.options, self.counts
        model = options.frozen_model(ctx)
        tokenizer = load_tokenizer(model.path)
        how = (options.longest(ctx.view)[0], options.instruction_temperature, options.instruction_top_p)
        ask = Ask(self.sampled[-1], *how, options.seed_of(ctx), title="instructions")
        replies, samples = sample_replies(ctx, model, tokenizer, [template_start(tokenizer)[0]], ask)
        self.samples |= samples
        counts["sampled"] = ask.samples
        texts = list(self._texts([replies.get(number) for number in range(ask.samples)]).items())
        kept, counts["duplicates"], counts["near_duplicates"] = first_of_each([text for _, text in texts])
        counts["instructions"] = len(kept)
        return [texts[place] for place in kept]

    def _ask(self, number: int, texts: list[str], ask: Ask) -> list[list[Reply | None]]:
        """Return what generator `number` replies, by text and then by sample; None where it does not."""
        if (model := self.models[number]) is None:
            replies = ask_endpoint(self.ctx, self.options.generators[number], texts, ask)
        else:
            replies, samples = ask_local(self.ctx, model, texts, ask)
            self.samples |= samples
        numbers = range(ask.samples * len(texts))
        return [[replies.get(number) for number in numbers[place :: len(texts)]] for place in range(len(texts))]

    def _texts(self, replies: list[Reply | None], of: str = "") -> dict[int, str]:
        """Return, by number, the replies that came to an end and say something; count the others."""
        texts = {}
        for number, reply in enumerate(replies):
            if reply and reply.finished and reply.text:
                texts[number] = reply.text
            else:
                self.counts[("failed" if reply is None else "empty" if reply.finished else "cut") + of] += 1
        return texts

    def _candidates(self, part: list[str], where: str) -> list[Candidate]:
        """Return all answers that can be used."""
        options, tokens = self.options, self.options.longest(self.ctx.view)[1]
        how = (options.answers, tokens, options.answer_temperature, options.answer_top_p, options.seed_of(self.ctx))
        candidates = []
        for number, generator in enumerate(options.generators):
            ask = Ask(*how, title=f"answers of {generator.title}{where}")
            for place, answers in enumerate(self._ask(number, part, ask)):
                candidates += [Candidate(place, number, text) for text in self._texts(answers, "_answers").values()]
        self.counts["candidates"] += len(candidates)
        return candidates

    def _means(self, part: list[str], candidates: list[Candidate], where: str) -> list[float | None]:
        """Return the candidates' mean scores over the whole committee, None without a score; count unreadable ones."""
        if not candidates:
            return []
        options, counts = self.options, self.counts
        texts = [judge_prompt(part[candidate.place], candidate.text) for candidate in candidates]
        scores = []
        for number, generator in enumerate(options.generators):
            how = (1, options.judge_tokens, options.judge_temperature, 1.0, options.seed_of(self.ctx))
            replies = self._ask(number, texts, Ask(*how, title=f"scores by {generator.title}{where}"))
            scores.append([reply and parse_score(reply.text) for (reply,) in replies])
            failed = replies.count([None])
            counts["judgements"] += len(texts)
            counts["failed_judgements"] += failed
            self.illegible[number] += scores[-1].count(None) - failed
        counts["unparsable"] = sum(self.illegible)
        means = [mean_score(given) for given in zip(*scores, strict=True)]
        counts["unscored"] += means.count(None)
        return means

    def _kept(self, part: list[str], candidates: list[Candidate], means: list[float | None]) -> list[dict[str, Any]]:
        """Return one pair for each instruction that has a scored answer, if it is good enough."""
        answers: list[list[tuple[float | None, Candidate]]] = [[] for _ in part]
        for mean, candidate in zip(means, candidates, strict=True):
            answers[candidate.place].append((mean, candidate))
        pairs = []
        seed = self.options.seed_of(self.ctx)
        for instruction, scored in zip(part, answers, strict=True):
            chosen = best([mean for mean, _ in scored], seed, instruction)
            if chosen is None:
                self.counts["unanswered"] += 1
                continue
            score, answer = scored[chosen]
            if score is not None and score < (self.options.min_score or 0.0):
                self.counts["below_min_score"] += 1
                continue
            turns = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer.text}]
            pairs.append({"messages": turns, "score": score, "generator": answer.generator})
        self.counts["kept"] += len(pairs)
        return pairs
