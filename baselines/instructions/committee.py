"""How a committee judges answers and which answer it keeps."""

import re
from collections.abc import Sequence

from continual.api import digest

RUBRIC = """Below are a request that somebody made to an assistant, and one answer to it. Rate the answer from 1 to 5:

1: it misses the request, breaks off, or advertises something.
2: it meets a part of the request; important points are missing or wrong.
3: it helps, but reads like a web page or a blog post and not like an assistant that was asked just this.
4: it meets the whole request in an assistant's voice, with small flaws.
5: it is what an expert would answer: right, to the point, well ordered, with nothing superfluous.

Request:
<<<
{instruction}
>>>

Answer:
<<<
{answer}
>>>

Give your reasons in one or two sentences. Then end with a line that holds nothing but
Score: <n>
where <n> is 1, 2, 3, 4 or 5."""
"""Our own words for the paper's scale; the wording of its table was not to be had."""
SCORE = re.compile(r"[*_#\s]*score[*_\s]*:[*_\s]*([1-5])(?:\.0+)?(?:\s*/\s*5)?[.*_\s]*", re.IGNORECASE)


def judge_prompt(instruction: str, answer: str) -> str:
    """Return what a judge is asked about one candidate."""
    return RUBRIC.format(instruction=instruction, answer=answer)


def parse_score(text: str) -> int | None:
    """Return the number on the last line that is not blank, 1 to 5, or None where that line is not a score."""
    lines = text.strip().splitlines()
    match = SCORE.fullmatch(lines[-1]) if lines else None
    return int(match[1]) if match else None


def mean_score(scores: Sequence[int | None]) -> float | None:
    """Return the mean over the judges whose score could be read; None if no score could be read."""
    given = [score for score in scores if score is not None]
    return sum(given) / len(given) if given else None


def best(means: Sequence[float | None], seed: int, instruction: str) -> int | None:
    """Return the place of the highest mean; None where no candidate has one.

    Equal ones are drawn from by the seed and the instruction: the first one would always be the first generator's.
    """
    known = [mean for mean in means if mean is not None]
    if not known:
        return None
    places = [place for place, mean in enumerate(means) if mean == max(known)]
    return places[int(digest([seed, instruction]), 16) % len(places)]
