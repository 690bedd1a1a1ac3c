"""Versions of a model in MLflow's registry: one per stage, and the alias of the version that forgot least."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from continual.show.tracking.names import TAG_CHARACTERS, clean, shorten

VERSION_KEY = "continual.version_key"
"""Tag with the ledger's run id and the stage's key: finds a version whose sending was not saved before a kill."""
LEAST_FORGETTING = "least-forgetting"
"""The alias that is set here. `latest` is MLflow's own: it reserves the name and serves the newest version by it."""
MEASURES = ("forgetting", "forgetting_old")


def register(client: Any, run_id: str, name: str, folder: Path, tags: Mapping[str, str], version_key: str) -> None:
    """Make a version of the registered model `name`, once per `version_key`, and set the alias again.

    `models:/<name>/<version>` gives the model folder, for `from_pretrained`. A tracker in a file refers to the folder
    where it lies; a server may not read this machine's files, so there it is uploaded to the run's artifacts.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if not client.search_model_versions(f"name = '{name}' and tags.`{VERSION_KEY}` = '{version_key}'"):
        if not folder.is_dir():
            raise FileNotFoundError(f"the model {folder} is gone; it is not registered")
        source = str(folder)
        if client.tracking_uri.startswith(("http://", "https://", "databricks")):
            client.log_artifacts(run_id, source, "model")
            source = f"{client.get_run(run_id).info.artifact_uri}/model"
        pairs = {clean(key): shorten(value, TAG_CHARACTERS) for key, value in tags.items()}
        client.create_model_version(name, source, run_id, tags={**pairs, VERSION_KEY: version_key})
    versions = list(client.search_model_versions(f"name = '{name}'"))
    if best := least_forgetting({int(version.version): version.tags for version in versions}):
        client.set_registered_model_alias(name, LEAST_FORGETTING, str(best))


def least_forgetting(versions: Mapping[int, Mapping[str, str]]) -> int | None:
    """Return the version that forgot least, by the tags of all; None while no version has anything to forget.

    Versions after fewer stages had less to forget, so only those after most stages are compared: by `forgetting`, or
    where none has it by `forgetting_old`; among equals by the higher `average_score`, then the newest.
    """
    for measure in MEASURES:
        measured = {number: tags for number, tags in versions.items() if _number(tags, measure) is not None}
        if measured:
            furthest = max(_number(tags, "stage") or 0.0 for tags in measured.values())
            ranked = [
                (_number(tags, measure), -(_number(tags, "average_score") or 0.0), -number)
                for number, tags in measured.items()
                if (_number(tags, "stage") or 0.0) == furthest
            ]
            return -min(ranked)[2]
    return None


def _number(tags: Mapping[str, str], name: str) -> float | None:
    with contextlib.suppress(KeyError, ValueError):
        return float(tags[name])
    return None
