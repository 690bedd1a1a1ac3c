"""`ray job submit` on a local cluster with token authentication, as docs/cluster.md types it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e import command

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """A head node of our own, ended by its process group; its environment and that of its clients."""
    environment = command.environment() | {
        "RAY_AUTH_MODE": "token",
        "HOME": str(home),  # `ray get-auth-token --generate` writes below it
        "CONTINUAL_STORAGE": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    port, dashboard = free_port(), free_port()
    head = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}"]
    # The agent that takes jobs has a fixed port unless told otherwise, and another Ray on this machine may have it.
    head.append(f"--dashboard-agent-listen-port={free_port()}")
    with (home / "head.txt").open("w") as output:
        process = subprocess.Popen(head, env=environment, stdout=output, stderr=output, start_new_session=True)
    environment |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    try:
        for _ in range(60):
            if subprocess.run([RAY, "job", "list"], env=environment, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(1)
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        # The mark by which a bare `ray.init()` on this machine would look for our cluster for ever.
        mark = Path("/tmp/ray/ray_current_cluster")
        if mark.is_file() and mark.read_text().strip().endswith(f":{port}"):
            mark.unlink()


def submit(environment: dict[str, str], yaml: Path, module: str = "continual.run") -> subprocess.CompletedProcess[str]:
    job = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", module, str(yaml)]
    for _ in range(30):
        found = subprocess.run(
            job, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False
        )
        # A young cluster answers before it has an agent that takes jobs.
        if "No available agent" not in found.stderr:
            break
        time.sleep(2)
    return found


def test_a_job_succeeds_and_again_after_a_comment_redoes_nothing(cluster: dict[str, str], home: Path) -> None:
    copy = ROOT / "tests" / "e2e" / f"job-{os.getpid()}.yaml"
    try:
        copy.write_text(command.TINY.read_text())
        first = submit(cluster, copy.relative_to(ROOT))
        assert "SUCCEEDED" in first.stdout or "succeeded" in first.stdout, first.stdout[-3000:] + first.stderr[-3000:]
        storage = home / "runs"
        ledger = (storage / "tiny" / "ledger.jsonl").read_text()
        copy.write_text("# another comment\n" + command.TINY.read_text())
        again = submit(cluster, copy.relative_to(ROOT))
        assert again.returncode == 0
        assert "forgetting" in again.stdout
        assert (storage / "tiny" / "ledger.jsonl").read_text() == ledger
    finally:
        copy.unlink()


SWEEP = """
name: job-sweep
sequence: sweep-base.yaml
space:
  train.learning_rate: {grid: [0.003, 0.001]}
  mitigation: {named: {plain: []}}
"""


def test_a_sweep_as_a_job_and_again(cluster: dict[str, str], home: Path) -> None:
    copy = ROOT / "tests" / "e2e" / f"job-sweep-{os.getpid()}.yaml"
    try:
        copy.write_text(SWEEP)
        first = submit(cluster, copy.relative_to(ROOT), "continual.tune")
        assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
        storage = home / "runs"
        found = json.loads((storage / "job-sweep" / "sweep.json").read_text())
        assert [trial["state"] for trial in found["trials"]] == ["done", "done"]
        ledgers = {path: path.read_text() for path in storage.glob("job-sweep-*/ledger.jsonl")}
        # The copied folder has another name now, and the relative paths in the YAMLs lead elsewhere.
        copy.write_text("# another comment" + SWEEP)
        again = submit(cluster, copy.relative_to(ROOT), "continual.tune")
        assert again.returncode == 0
        assert "2 trials: 2 done" in again.stdout
        assert len(ledgers) == 2
        assert all(path.read_text() == text for path, text in ledgers.items())
    finally:
        copy.unlink()


def test_a_job_without_a_storage_is_refused_with_the_way_out(tmp_path: Path) -> None:
    job = command.environment() | {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    job.pop("CONTINUAL_STORAGE", None)
    refused = subprocess.run(
        [sys.executable, "-m", "continual.run", str(command.TINY)],
        cwd=ROOT, env=job, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "CONTINUAL_STORAGE" in refused.stderr
