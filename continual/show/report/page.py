"""The page: one HTML file with all numbers and figures, which needs no network."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from continual.forgetting.figures import FIGURES
from continual.show.progress import duration
from continual.show.report.draw import Plot
from continual.show.report.gather import RunData
from continual.show.report.series import differing, shown
from continual.show.report.trade_off import TradeOff
from continual.show.tables import TOKENS

TOKEN_KEYS = (*TOKENS, ("task_tokens", "of these, the tasks' own"))


@dataclass(frozen=True)
class SamplesView:
    """A sample set on the page: its manifest, its first samples (see `samples.make_shown`), or why there are none."""

    stage: int
    stage_name: str
    manifest: dict[str, Any]
    lines: list[dict[str, Any]]
    missing: str


@dataclass(frozen=True)
class Page:
    """Everything that the template shows; lists have an entry per run in the order of `labels`."""

    runs: Sequence[RunData]
    labels: Sequence[str]
    matrices: Sequence[Plot | None]
    over_stages: Sequence[Plot]
    over_steps: Sequence[Plot]
    trade_off_points: dict[str, list[TradeOff | None]]
    trade_offs: Sequence[Plot]
    losses: Sequence[Plot]
    drift: Sequence[Plot]
    weights: Sequence[Plot]
    seconds: Plot | None
    samples: Sequence[Sequence[SamplesView]]

    @property
    def title(self) -> str:
        return self.runs[0].name if len(self.runs) == 1 else f"{len(self.runs)} runs compared"


def render(page: Page) -> str:
    """Return the whole HTML file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)  # fmt: skip
    environment.globals |= {
        "number": number,
        "derived": derived,
        "inline": inline,
        "duration": duration,
        "shown": shown,
        "figures": FIGURES,
        "token_keys": TOKEN_KEYS,
    }
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    configs = [run.config for run in page.runs]
    points = page.trade_off_points.items()
    return template.render(
        page=page,
        entries=list(zip(page.labels, page.runs, strict=True)),
        trade_offs={kind: list(zip(page.labels, page.runs, by_run, strict=True)) for kind, by_run in points},
        samples=list(zip(page.labels, page.samples, strict=True)),
        differences=differing(configs) if len(configs) > 1 else {},
        phases=list(dict.fromkeys(phase for run in page.runs for phase in run.summary["seconds"])),
    )


def number(run: RunData, *path: str | int, form: str = ".3f") -> Markup:
    """Return a number of summary.json for reading, with its JSON pointer there and its exact value as attributes.

    Return `–` if the summary has null or nothing at that place.
    """
    value: Any = run.summary
    for part in path:
        value = value[int(part)] if isinstance(value, list) else (value or {}).get(part)
    if value is None:
        return Markup("–")
    key = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return _data(run, key, value, format(value, form))


def derived(run: RunData, key: str, value: float | None, text: str) -> Markup:
    """Return a number that the report computed itself, named `key`; `–` for None."""
    return Markup("–") if value is None else _data(run, key, value, text)


def _data(run: RunData, key: str, value: float, text: str) -> Markup:
    exact = json.dumps(value)
    return Markup(
        '<data value="{}" data-run="{}" data-key="{}" data-value="{}">{}</data>'
    ).format(exact, run.folder.name, key, exact, text)  # fmt: skip


def inline(plot: Plot) -> Markup:
    """Return a figure as an image within the page; figures wider than a phone scroll in their own box."""
    source = base64.b64encode(plot.svg).decode()
    return Markup(
        '<figure><figcaption>{}</figcaption><div class="scroll" tabindex="0">'
        '<img src="data:image/svg+xml;base64,{}" alt="{}" style="min-width: {}px"></div></figure>'
    ).format(plot.title, source, plot.alt, plot.width)
