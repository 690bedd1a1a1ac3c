"""`python -m benchmarks.methods`: every method side by side on two sequences, three seeds; resumable.

Runs are kept in the storage; the same command again runs what is missing and writes the results anew.
"""

import argparse
from pathlib import Path

from benchmarks.methods.arms import SEQUENCES, Sequence
from benchmarks.methods.results import collect, strongest, write
from benchmarks.methods.runs import ROOT, Arm, run_all

TRIAL_SEED = 100
"""The seed on which strengths are looked for; it is in no mean."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "methods" / "results")
    parser.add_argument("--sequences", nargs="+", choices=list(SEQUENCES), default=list(SEQUENCES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    options = parser.parse_args()
    for name in options.sequences:
        measure(SEQUENCES[name], options)


def measure(sequence: Sequence, options: argparse.Namespace) -> None:
    storage = options.storage.resolve()

    def say(text: str) -> None:
        print(text, flush=True)

    plain = Arm(sequence, "plain", [], TRIAL_SEED)
    trials = {
        (name, strength): Arm(sequence, f"{name} {strength:g}", mitigation, TRIAL_SEED)
        for name, strengths in sequence.strengths.items()
        for strength, mitigation in strengths.items()
    }
    failed = run_all([plain, *trials.values()], storage, options.jobs, say)
    if plain.run_name in failed:
        raise SystemExit(f"{plain.run_name} failed: {failed[plain.run_name]}")
    chosen = strongest(sequence, plain, trials, storage, failed)
    listed = {**sequence.arms, **{f"{n} {s:g}": sequence.strengths[n][s] for n, s in chosen.items()}}
    arms = [Arm(sequence, name, mitigation, seed) for seed in options.seeds for name, mitigation in listed.items()]
    failed |= run_all(arms, storage, options.jobs, say)
    print(write(collect(sequence, arms, plain, trials, failed, storage), options.output))


if __name__ == "__main__":
    main()
