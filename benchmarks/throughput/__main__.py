"""`make bench`: measurements of throughput, one after another, and the table of goals in docs/results.md.

`python -m benchmarks.throughput [NAME ...]` runs those that are named; without names, sampling, streaming, stages and
the driver, in half an hour. Nothing else should run beside them.
"""

import argparse
import subprocess
import sys
import time

from benchmarks.throughput import goals, sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *goals.GOALS], metavar="NAME", help=", ".join(goals.GOALS))
    names = parser.parse_args().names or goals.BENCH
    failed = []
    for name in names:
        print(f"\n{name}")
        begin = time.monotonic()
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.throughput.{name}"], cwd=sides.ROOT, check=False
        ).returncode:
            failed.append(name)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "docs.generate"], cwd=sides.ROOT, check=True)
    print(f"\n{goals.table()}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
