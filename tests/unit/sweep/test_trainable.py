"""What a trial's function reads from its driver."""

import subprocess
import sys
from pathlib import Path

from continual.sweep.trainable import _reports, _send

DRIVER = """
import json, sys
print(json.dumps({"request": sys.stdin.readline().strip()}), flush=True)
try:
    sys.stdin.readline()
    sys.stdin.readline()
except KeyboardInterrupt:
    print(json.dumps({"interrupted": True}), flush=True)
"""


def test_reports_arrive_in_order_and_a_stop_interrupts_the_driver(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    reports = _reports(driver, tmp_path / "stop")
    _send(driver, "go")
    assert next(reports) == {"request": "go"}
    _send(driver, "continue")
    (tmp_path / "stop").touch()
    assert list(reports) == [{"interrupted": True}]
    assert driver.wait() == 0
    _send(driver, "continue")  # to a driver that has ended: nobody reads it
