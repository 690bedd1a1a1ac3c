"""`python -m benchmarks.pretrained`: does a pretrained model keep more with replay, at equal new score? Resumable.

Runs arms.yaml through `continual.tune` and writes `results/pretrained.*`, or with `--rates` rates.yaml and
`results/rates.*`: what the plain arm learns and forgets at which learning rate. `model.source=FOLDER` names the model;
texts and questions come from the folder of shared data, see texts.py.
"""

import os
from pathlib import Path

from benchmarks import sweeps
from benchmarks.pretrained import rates, results
from benchmarks.stories.lm_eval.documents import shared

HERE = Path(__file__).resolve().parent


def main() -> None:
    flag = "run the plain arm at several learning rates instead"
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results", rates=flag)
    os.environ["CONTINUAL_SHARED"] = str(shared().resolve())
    name = "rates" if options.rates else "arms"
    code = sweeps.tune(HERE / f"{name}.yaml", options)
    if options.rates:
        of_rates = rates.collect(sweeps.trials("pretrained-rates", options.storage))
        sweeps.finish("rates", options.output, of_rates, rates.table(of_rates), None, code)
        return
    found = results.collect(sweeps.trials("pretrained-arms", options.storage))
    sweeps.finish("pretrained", options.output, found, results.table(found), results.plot, code)


if __name__ == "__main__":
    main()
