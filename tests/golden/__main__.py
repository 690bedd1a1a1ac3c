"""Write the golden losses anew: the first 20 steps of every strategy on the toy model of its tests."""

import json
import tempfile
from pathlib import Path

import torch

from tests.golden import LOSSES, losses_of
from tests.local.training import test_strategies


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        test_strategies.start(test_strategies.scenarios, 2, Path(folder))
        results = torch.load(Path(folder) / "results-0.pt")
    losses = {name: losses_of(result["record"]) for name, result in results.items()}
    LOSSES.write_text(json.dumps(losses, indent=1) + "\n")
    print(f"wrote {LOSSES}")


if __name__ == "__main__":
    main()
