"""`python -m benchmarks.pretrained`: does a pretrained model keep more with replay, at equal new score? Resumable.

Runs rates.yaml (with `--rates`: which learning rate makes the plain arm forget) or arms.yaml through `continual.tune`,
and writes `results/pretrained.*`. `model.source=FOLDER` names the model; texts and questions come from the folder of
shared data, see texts.py.
"""

import os
from pathlib import Path

from benchmarks import sweeps
from benchmarks.pretrained import results
from benchmarks.stories.lm_eval.documents import shared

HERE = Path(__file__).resolve().parent


def main() -> None:
    rates = "run the search for the learning rate instead, and print what it found"
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results", rates=rates)
    os.environ["CONTINUAL_SHARED"] = str(shared().resolve())
    name = "rates" if options.rates else "arms"
    code = sweeps.tune(HERE / f"{name}.yaml", options)
    if options.rates:
        raise SystemExit(code)
    found = results.collect(sweeps.trials("pretrained-arms", options.storage))
    sweeps.finish("pretrained", options.output, found, results.table(found), results.plot, code)


if __name__ == "__main__":
    main()
