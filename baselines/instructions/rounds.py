"""The rounds of instruction synthesis: instructions, answers, scores, and the best answer to each instruction."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from baselines.instructions.committee import best, judge_prompt, mean_score, parse_score
from baselines.instructions.duplicates import first_of_each
from baselines.instructions.endpoint import ask_endpoint
from baselines.instructions.generators import Ask, Replies, ask_local, replies
from baselines.instructions.options import SynthesisOptions
from continual.api import ConfigurationError, Context, ModelRef, SampleRequest, load_tokenizer, template_start

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

    `models`: the generators' models, None for endpoints; `illegible`: unparsable scores by judge; `samples`: hashes of
    the sample sets that were made or found.
    """

    ctx: Context
    options: SynthesisOptions
    models: list[ModelRef | None]
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTS, 0)))
    illegible: list[int] = field(init=False)
    samples: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.illegible = [0] * len(self.models)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The kept pairs (`messages`, `score`, `generator`) in the order of their instructions, and what was counted.

        Raises ConfigurationError when none is left.
        """
        instructions = self._instructions()
        pairs: list[dict[str, Any]] = []
        for first in range(0, len(instructions), PART):
            part = instructions[first : first + PART]
            where = f" ({first} to {first + len(part)})" if len(instructions) > PART else ""
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

    def _instructions(self) -> list[str]:
        """What the model says after its chat template where a user would speak, without duplicates."""
        ctx, options, counts = self.ctx, self.options, self.counts
        model = options.frozen_model(ctx)
        tokenizer = load_tokenizer(model.path)
        counts["sampled"] = options.count(ctx.view)
        request = SampleRequest(
            model,
            count=counts["sampled"],
            start="prompts",
            prompts=[template_start(tokenizer)[0]],
            new_tokens=options.longest(ctx.view)[0],
            temperature=options.instruction_temperature,
            top_p=options.instruction_top_p,
            seed=options.seed_of(ctx),
        )
        samples = ctx.generate(request, "instructions")
        self.samples.append(samples.hash)
        found = list(replies(samples, tokenizer).values())
        whole = [reply.text for reply in found if reply.finished]
        texts = [text for text in whole if text]
        kept, counts["duplicates"], counts["near_duplicates"] = first_of_each(texts)
        counts["failed"] = counts["sampled"] - len(found)
        counts["cut"] = len(found) - len(whole)
        counts["empty"] = len(whole) - len(texts)
        counts["instructions"] = len(kept)
        return [texts[place] for place in kept]

    def _ask(self, number: int, texts: list[str], ask: Ask) -> Replies:
        model = self.models[number]
        if model is None:
            return ask_endpoint(self.ctx, self.options.generators[number], texts, ask)
        replied, made = ask_local(self.ctx, model, texts, ask)
        self.samples += made
        return replied

    def _candidates(self, part: list[str], where: str) -> list[Candidate]:
        """All answers that came to an end and say something."""
        ctx, options, counts = self.ctx, self.options, self.counts
        tokens, found = options.longest(ctx.view)[1], []
        how = (options.answers, tokens, options.answer_temperature, options.answer_top_p, options.seed_of(ctx))
        for number, generator in enumerate(options.generators):
            ask = Ask(*how, title=f"answers of {generator.title}{where}")
            for place, answers in enumerate(self._ask(number, part, ask)):
                for reply in answers:
                    if reply is None:
                        counts["failed_answers"] += 1
                    elif not reply.finished:
                        counts["cut_answers"] += 1
                    elif not reply.text:
                        counts["empty_answers"] += 1
                    else:
                        found.append(Candidate(place, number, reply.text))
        counts["candidates"] += len(found)
        return found

    def _means(self, part: list[str], candidates: list[Candidate], where: str) -> list[float | None]:
        """The candidates' mean scores over the whole committee; a score that cannot be read is counted, and is none."""
        if not candidates:
            return []
        options, counts = self.options, self.counts
        texts = [judge_prompt(part[one.place], one.text) for one in candidates]
        scores: list[list[int | None]] = [[] for _ in candidates]
        for number, generator in enumerate(options.generators):
            how = (1, options.judge_tokens, options.judge_temperature, 1.0, options.seed_of(self.ctx))
            replied = self._ask(number, texts, Ask(*how, title=f"scores by {generator.title}{where}"))
            counts["judgements"] += len(texts)
            for given, (reply,) in zip(scores, replied, strict=True):
                given.append(parse_score(reply.text) if reply else None)
                if reply is None:
                    counts["failed_judgements"] += 1
                elif given[-1] is None:
                    counts["unparsable"] += 1
                    self.illegible[number] += 1
        means = [mean_score(given) for given in scores]
        counts["unscored"] += means.count(None)
        return means

    def _kept(self, part: list[str], candidates: list[Candidate], means: list[float | None]) -> list[dict[str, Any]]:
        """One pair for each instruction that has a scored answer, if it is good enough."""
        of: list[list[int]] = [[] for _ in part]
        for number, one in enumerate(candidates):
            of[one.place].append(number)
        pairs = []
        for instruction, numbers in zip(part, of, strict=True):
            chosen = best([means[number] for number in numbers])
            if chosen is None:
                self.counts["unanswered"] += 1
                continue
            score, answer = means[numbers[chosen]], candidates[numbers[chosen]]
            if self.options.min_score is not None and score is not None and score < self.options.min_score:
                self.counts["below_min_score"] += 1
                continue
            turns = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer.text}]
            pairs.append({"messages": turns, "score": score, "generator": answer.generator})
        self.counts["kept"] += len(pairs)
        return pairs
