"""A driver's threads import transformers together."""

import subprocess
import sys
from pathlib import Path

from tests.kits.project import write_model

DRIVER = """
import sys, threading
from continual.models.architecture import read_config
from continual.models.load import load_tokenizer
from continual.run.drive import _import

threading.Thread(target=_import).start()
while "transformers" not in sys.modules:
    pass
assert not hasattr(sys.modules["transformers"], "AutoConfig"), "the import was over before the test began"
read_config(sys.argv[1])
load_tokenizer(sys.argv[1])
print("read")
"""


def test_a_model_is_read_while_another_thread_imports_transformers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", DRIVER, str(folder)], capture_output=True, text=True, check=False)
    assert done.stdout == "read\n", done.stderr[-2000:]
