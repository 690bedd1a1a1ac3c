"""Check that lm-eval task names exist, before anything heavy starts.

lm-eval's own index parses 14,000 YAML files in six seconds. The names are values of two unindented keys, so a scan of
the files' bytes finds them in 0.2 s, and much sooner if the folders named like the task are enough.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from continual.errors import ConfigurationError, nearest

KEY = re.compile(rb"^[\"']?(task|group)[\"']?:(.*)", re.MULTILINE)
"""The key that names a task or group, with the rest of its line."""


@dataclass
class Index:
    """Names found so far: `tasks` and `groups`, each with its YAML file."""

    tasks: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def read(self, path: str) -> None:
        """Add the names that a YAML file defines; a file that cannot be read defines none."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                content = b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
            finally:
                os.close(descriptor)
        except OSError:
            return
        for key, value in KEY.findall(content):
            name = value.decode(errors="replace").split(" #")[0].strip().strip("\"'")
            if name and not name.startswith(("[", "-")):  # else a list: the members of a group
                (self.tasks if key == b"task" else self.groups).setdefault(name, path)

    def __contains__(self, name: str) -> bool:
        return name in self.tasks or name in self.groups


def yaml_files(folder: str) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in ("__pycache__", ".ipynb_checkpoints"))
        for file in sorted(files):
            if file.endswith(".yaml"):
                yield f"{path}/{file}"


def own_index(include_path: str | None) -> Index:
    """Return the names that the user's folder defines. Raises ConfigurationError if it does not exist."""
    index = Index()
    if include_path:
        if not Path(include_path).is_dir():
            raise ConfigurationError(
                "evaluate.include_path",
                f"there is no folder {include_path}",
                "name the folder with the task YAML files",
            )
        for path in yaml_files(include_path):
            index.read(path)
    return index


def unknown_tasks(names: list[str], include_path: str | None = None) -> list[tuple[str, str | None]]:
    """Return the names that neither lm-eval nor `include_path` defines, each with the nearest name that is defined.

    A tag (`ai2_arc`) counts as unknown: lm-eval gives it no score of its own. Raises ConfigurationError if the folder
    does not exist or lm-eval is not installed.
    """
    index = own_index(include_path)
    missing = [name for name in dict.fromkeys(names) if name not in index]
    if not missing:
        return []
    package = find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError("evaluate", "lm-eval is not installed", "pip install lm-eval")
    root = f"{next(iter(package.submodule_search_locations))}/tasks"
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    # `arc_easy` is in `arc`: folders that a missing name starts with come first, and usually answer.
    likely = {folder for folder in folders if any(name.startswith(folder) for name in missing)}
    for folder in sorted(folders, key=lambda folder: folder not in likely):
        if folder not in likely and all(name in index for name in missing):
            return []
        for path in yaml_files(f"{root}/{folder}"):
            index.read(path)
    known = [*index.tasks, *index.groups]  # about 12,000 names
    return [(name, nearest(name, known, length_difference=4)) for name in missing if name not in index]
