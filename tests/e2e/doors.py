"""The tiny run with secrets planted around it, and a record of who listened while it went."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.conftest import ROOT
from tests.e2e import command

ENVIRONMENT = {
    "HF_TOKEN": "hf_" + "PlantedInTheEnvironmentAbcdefghijk",
    "MLFLOW_TRACKING_PASSWORD": "planted-tracking-password",
    "OPENAI_API_KEY": "sk-planted-openai-key-0123456789abcdefghij",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret=access",
}
WRITTEN = {
    "track.tags": '{"source": "https://reader:planted-in-a-tag@data.example/x?token=planted-parameter&v=1", '
    '"api_keys": "planted-in-a-plural"}',
    "track.params": '{"origin": "postgresql://reader:planted%2Din%2Da%2Dparam@host/db", '
    '"driver": "mssql+pyodbc:///?odbc_connect=SERVER%3Dh%3BUID%3Dsa%3BPWD%3Dplanted-in-odbc%3Bx%3D1", '
    '"openai_key": "planted-vendor-key", "host": "reader:planted-bare@host:5432"}',
}
IN_URI = "track.uri=https://reader:planted-in-the-uri@mlflow.example"
"""Read by plans, and in `TRACKED` by a run whose tracker is down."""
TRACKED = """track.uri=http://reader:planted'in-a-run@127.0.0.1:9"""
PLANS = {"plan": [IN_URI], "refused": [IN_URI, "track.urii=https://reader:planted-in-a-typo@mlflow.example"]}
PLANTED = [
    *ENVIRONMENT.values(), "planted-in-the-uri", "planted-in-a-typo", "planted'in-a-run", "planted%27in-a-run",
    "planted-in-a-tag", "planted-parameter", "planted%2Din%2Da%2Dparam", "planted-in-a-param",
    "planted-in-a-plural", "planted-in-odbc", "planted-vendor-key", "planted-bare",
]  # fmt: skip
LISTENED, FOUND, PLANNED, FAILURE = "listened.json", "found.json", "planned.json", "tracked-failure.txt"


def run(storage: Path) -> tuple[int, str]:
    """Run the tiny sequence to its end; return the exit code and what it wrote to stdout.

    Leaves in the storage which addresses its processes listened at, and where a planted secret was found.
    """
    temporary = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # Ray's sockets need a short path
    out, err = temporary / "out.txt", temporary / "err.txt"
    overrides = [f"{key}={value}" for key, value in WRITTEN.items()]
    with out.open("w") as output, err.open("w") as errors:
        driver = subprocess.Popen(
            command.arguments(storage, *overrides), cwd=ROOT, stdout=output, stderr=errors,
            env=command.environment() | ENVIRONMENT | {"RAY_TMPDIR": str(temporary)},
        )  # fmt: skip
        # Ray names a process after what it does at the moment: one process has several names.
        names: dict[int, set[str]] = {}
        listened: dict[str, set[int]] = {}
        while driver.poll() is None:
            for pid, name, addresses in _processes(driver.pid):
                names.setdefault(pid, set()).add(name)
                for address in addresses:
                    listened.setdefault(address, set()).add(pid)
            time.sleep(1.0)
    environment = command.environment() | ENVIRONMENT
    tracked = temporary / "tracked"
    shutil.copytree(storage / "store", tracked / "store")
    arguments = command.arguments(tracked, *overrides, TRACKED)
    with (temporary / "tracked.txt").open("w") as output:
        again = subprocess.run(
            arguments, cwd=ROOT, env=environment | {"RAY_TMPDIR": str(temporary)}, stdout=output,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    state = tracked / "tiny" / "mlflow" / "state.json"
    waits = state.is_file() and "***" in state.read_text()
    planned = {name: plan(storage, [*overrides, *more], environment) for name, more in PLANS.items()}
    planned["tracked"] = [str(again.returncode), str(waits)]
    (storage / PLANNED).write_text(json.dumps(planned))
    found = [*_found(storage), *_found(temporary)]  # also in what all of them wrote to stdout and stderr
    named = {address: [sorted(names[pid]) for pid in sorted(pids)] for address, pids in listened.items()}
    (storage / LISTENED).write_text(json.dumps(named))
    (storage / FOUND).write_text(json.dumps(found))
    text, failure = out.read_text(), err.read_text()
    if again.returncode:
        (storage / FAILURE).write_text(_said(temporary / "tracked.txt", *sorted((tracked / "tiny").glob("l*"))))
    shutil.rmtree(temporary, ignore_errors=True)
    return driver.returncode, text if driver.returncode == 0 else text + failure


def plan(storage: Path, overrides: list[str], environment: dict[str, str]) -> list[str]:
    """Return what a plan writes to stdout and to stderr."""
    arguments = [*command.arguments(storage, *overrides), "--plan"]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return [done.stdout, done.stderr]


def _processes(pid: int) -> list[tuple[int, str, list[str]]]:
    """Return number and present name of a process and its descendants, and the addresses that each listens at."""
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    found = []
    for process in processes:
        try:
            listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            found.append((process.pid, process.name(), [str(connection.laddr.ip) for connection in listening]))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _said(*files: Path) -> str:
    """Return how output, ledger and log of a run end, without what was planted."""
    text = "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-4000:]}" for file in files if file.is_file())
    for number, secret in enumerate(PLANTED):
        text = text.replace(secret, f"<planted {number}>")
    return text


def _found(folder: Path) -> list[str]:
    """Return the files below a folder that hold a planted secret, with the secret."""
    secrets = [secret.encode() for secret in PLANTED]
    found = []
    for path, _, files in os.walk(folder):
        for file in (Path(path) / name for name in files):
            if file.is_file() and not file.is_symlink():
                content = file.read_bytes()
                found += [f"{file}: {secret.decode()}" for secret in secrets if secret in content]
    return found
