"""Check that lm-eval task names exist, before anything heavy starts.

lm-eval's own index parses 14,000 YAML files in six seconds. The names are values of two unindented keys, so a scan of
the files' bytes finds them in 0.2 s, and much sooner if the folders named like the task are enough.
"""

import io
import os
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from continual.errors import ConfigurationError, nearest

KEY = re.compile(rb"^[\"']?(task|group)[\"']?:(.*)", re.MULTILINE)
"""The key that names a task or group, with the rest of its line."""


def defined_in(folder: str) -> dict[str, str]:
    """Return what the folder's YAML files define, `task` or `group` by name; a file that cannot be read is left out."""
    kinds: dict[str, str] = {}
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - {"__pycache__", ".ipynb_checkpoints"})
        for file in sorted(file for file in files if file.endswith(".yaml")):
            # `Path.read_bytes` takes twice as long for 14,000 small files.
            with suppress(OSError), io.FileIO(f"{path}/{file}") as opened:
                for kind, value in KEY.findall(opened.readall()):
                    name = value.decode(errors="replace").split(" #")[0].strip().strip("\"'")
                    if name and not name.startswith(("[", "-")):  # else a list: the members of a group
                        kinds.setdefault(name, kind.decode())
    return kinds


def own_names(include_path: str | None) -> dict[str, str]:
    """Return what the user's folder defines, see `defined_in`. Raises ConfigurationError if it does not exist."""
    if include_path and not Path(include_path).is_dir():
        problem = f"there is no folder {include_path}"
        raise ConfigurationError("evaluate.include_path", problem, "name the folder with the task YAML files")
    return defined_in(include_path) if include_path else {}


def unknown_tasks(names: list[str], include_path: str | None = None) -> list[tuple[str, str | None]]:
    """Return the names that neither lm-eval nor `include_path` defines, each with the nearest name that is defined.

    A tag (`ai2_arc`) counts as unknown: lm-eval gives it no score of its own. Raises ConfigurationError if the folder
    does not exist or lm-eval is not installed.
    """
    kinds = own_names(include_path)
    missing = [name for name in dict.fromkeys(names) if name not in kinds]
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
        if folder not in likely and all(name in kinds for name in missing):
            return []
        kinds |= defined_in(f"{root}/{folder}")
    # About 12,000 names.
    return [(name, nearest(name, kinds, length_difference=4)) for name in missing if name not in kinds]
