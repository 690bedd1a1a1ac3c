"""What associations and forecasts have left, as the report shows it; read from their files alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.ledger.folder import AssociationsFolder, RunFolder
from continual.ledger.ledger import Events
from continual.show.associations import UNITS
from continual.show.plots import DPI
from continual.show.report.draw import Plot
from continual.store.json_files import has, known_json, read_json
from continual.store.manifest import is_manifest
from continual.store.notices import say

LIKENESS = {"similarity": "words (TF-IDF)", "similarity_of_representations": "representations by the start model"}
"""Correlations of the changes in associations.json, with what likeness of texts; earlier versions had the first one."""
NUMBER = (int, float)
MAYBE = (int, float, type(None))
PNG = b"\x89PNG\r\n\x1a\n"
"""What a PNG begins with. Its length and `IHDR` follow in 8 bytes, then the width in 4."""
PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class AssociationsData:
    """Associations, read from their folder. `numbers` is associations.json; `picture`: None if it is gone."""

    folder: Path
    numbers: dict[str, Any]
    picture: Plot | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def unit(self) -> str:
        """The unit of what was forgotten."""
        return UNITS[self.numbers["kind"]]


@dataclass(frozen=True)
class Completion:
    """What `predicted_replay` expected after some steps of a stage, from probes that it measured then.

    `numbers`: what it has kept in the store; `file`: where, relative to the storage.
    """

    stage: int
    name: str
    step: int
    label: str
    numbers: dict[str, Any]
    file: str


def gather_completions(ledger: Events, stages: Sequence[str], store: Path) -> list[Completion]:
    """Return what was expected in the middle of the run's stages; [] if it was not kept, as by earlier versions."""
    parts = {(part["stage"], part["step"]): part for part in ledger.all("part") if 1 <= part["stage"] <= len(stages)}
    kept: list[tuple[Path, dict[str, Any]]] = []
    for file in sorted((store / "completions").glob("*/manifest.json")) if parts else []:
        manifest = known_json(file, is_manifest)
        if _is_completion(manifest.get("completion")) and has(models=list, replay=str, label=str)(manifest["inputs"]):
            kept.append((file, manifest))
        else:
            say(f"note: {file} is damaged and left out of the report")
    return [
        Completion(
            part["stage"], stages[part["stage"] - 1], part["step"], manifest["inputs"]["label"], manifest["completion"],
            str(file.relative_to(store.parent)),
        )
        for part in parts.values()
        for file, manifest in kept
        if _belongs(part, manifest["inputs"])
    ]  # fmt: skip


def _belongs(part: dict[str, Any], kept: dict[str, Any]) -> bool:
    """Return whether a part of a stage began with its model and its replay being those of what was kept."""
    streams = part["inputs"].get(kept["label"])
    return kept["models"][-1:] == [part["model"]] and isinstance(streams, list) and kept["replay"] in streams


def holds_associations(folder: Path) -> bool:
    """Return whether a folder is that of associations."""
    return AssociationsFolder(folder).numbers.is_file()


def gather_associations(folder: Path) -> AssociationsData:
    """Read the folder of associations. Raises ContinualError if its numbers are damaged."""
    files = AssociationsFolder(folder)
    again = "give the command of the associations again, which writes it anew"
    numbers = read_json(files.numbers, again, _are_associations)
    return AssociationsData(folder, numbers, _picture(files))


def gather_forecast(files: RunFolder) -> dict[str, Any] | None:
    """Return the forecast in a run's folder; None without one. A damaged one is left out, and the user is told."""
    if not files.forecast.is_file():
        return None
    found = known_json(files.forecast, _is_forecast)
    if not found:
        again = "give the command of the forecast again, which writes it anew"
        say(f"note: {files.forecast} is damaged and left out of the report; {again}")
    return found or None


def _picture(files: AssociationsFolder) -> Plot | None:
    if not files.picture.is_file():
        return None
    content = files.picture.read_bytes()
    if not (content.startswith(PNG) and content[12:16] == b"IHDR" and content.endswith(PNG_END)):
        say(f"note: {files.picture} is damaged and left out of the report")
        return None
    alt = (
        f"Heat map of the associations {files.path.resolve().name}: a row per task, the most destructive first, and a "
        "column per document or per some in a row, the most fragile first; red where a task made the model forget. "
        "The tables have the numbers."
    )
    width = round(int.from_bytes(content[16:20], "big") * 96 / DPI)
    return Plot(files.picture.stem, "Who forgets what", alt, content, width, "png")


def _are_associations(value: Any) -> bool:
    """Return whether a value of JSON is what `continual.associate` writes of a matrix."""
    lists = {"destructive": list, "fragile": list, "forecasts": list}
    counts = dict.fromkeys(("tasks", "documents", "probes", "draws"), int)
    shares = {"r_squared": dict, "variance_explained": dict}
    if not has(kind=str, mean=NUMBER, **lists, **counts, **shares)(value):
        return False
    if value["kind"] not in UNITS or not isinstance(value.get("upstream", ""), str):
        return False
    if not all(isinstance(value.get(name, 0), int) for name in ("wrong_before", "probes_asked_for")):
        return False
    likeness = [value.get(name, "") for name in LIKENESS]
    if "similarity" not in value or not all(isinstance(each, dict | str) for each in likeness):
        return False
    alike = [each for found in likeness if isinstance(found, dict) for each in found.values()]
    shares_are = all(isinstance(share, NUMBER) for name in shares for share in value[name].values())
    means = map(has(name=str, mean=NUMBER, stderr=MAYBE), [*value["destructive"], *value["fragile"]])
    if not all(map(_is_error, value["forecasts"])):
        return False
    comparable = all(each["scores"].keys() == value["forecasts"][0]["scores"].keys() for each in value["forecasts"])
    return shares_are and comparable and all(means) and all(isinstance(each, MAYBE) for each in alike)


def _is_forecast(value: Any) -> bool:
    """Return whether a value of JSON is what `continual.forecast` writes of a task."""
    numbers = {"mean": NUMBER, "measured_mean": NUMBER}
    if not has(upstream=str, model=str, probes=int, interval=list, at_risk=list, error=dict, **numbers)(value):
        return False
    interval = len(value["interval"]) == 2 and all(isinstance(end, NUMBER) for end in value["interval"])
    at_risk = map(has(document=str, change=NUMBER, measured=bool), value["at_risk"])
    return interval and all(at_risk) and _is_error(value["error"])


def _is_completion(value: Any) -> bool:
    """Return whether a value of JSON is what `predicted_replay` keeps of a row that it has completed."""
    counts = {"probes": int, "documents": int}
    if not has(matrix=str, model=str, at_risk=list, mean=NUMBER, measured_mean=NUMBER, **counts)(value):
        return False
    return all(map(has(document=str, change=NUMBER, measured=bool), value["at_risk"]))


def _is_error(value: Any) -> bool:
    """Return whether a value of JSON says how far a model's forecasts are off."""
    if not has(model=str, scores=dict, bias=NUMBER, spread=NUMBER, tasks=int)(value):
        return False
    return all(score is None or has(mean=NUMBER, stderr=MAYBE)(score) for score in value["scores"].values())
