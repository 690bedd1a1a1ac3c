"""`python -m continual.run seq.yaml [key=value ...]`: arguments in, one call, exit code out."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from collections.abc import Sequence as Arguments
from pathlib import Path
from typing import Any

from continual import __version__
from continual.config.check import check
from continual.config.load import Loaded, load_sequence
from continual.errors import ContinualError, ForgotTooMuch, Interrupted

EPILOG = """exit codes: 0 done, 1 failed while running, 2 bad configuration or usage,
3 forgot more than --max-forgetting, 130 interrupted.
The same command again resumes; a finished run prints its result."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m continual.run",
        description="Learn tasks one after another and keep the old ones.",
        epilog=EPILOG,
    )
    found.add_argument("sequence", nargs="?", help="the sequence's YAML")
    found.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.learning_rate=1e-5 mitigation=[]")
    found.add_argument("--plan", action="store_true", help="print what would run, and start nothing")
    found.add_argument("--fresh", action="store_true", help="forget an earlier run of the same name (the store stays)")
    found.add_argument("--max-forgetting", type=float, metavar="X", help="exit with 3 if more than X was forgotten")
    found.add_argument("--list", choices=["mitigations"], help="print every mitigation with its options")
    found.add_argument("--version", action="version", version=__version__)
    return found


def main(arguments: Arguments[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_intermixed_args(arguments)
    if options.list:
        from continual.listing import list_mitigations

        print(list_mitigations())
        return 0
    if not options.sequence:
        parser().error("name the sequence's YAML file, e.g. python -m continual.run seq.yaml")
    sys.path.insert(0, str(Path.cwd()))
    # `ray job stop` ends a driver with SIGTERM: the same clean end as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        loaded = load_sequence(options.sequence, options.overrides)
        notes = check(loaded)
        if options.plan:
            from continual.plan import make_plan, render

            print(render(make_plan(loaded)))
            for note in notes:
                print(f"note: {note}")
            return 0
        summary = execute(loaded, notes, options.fresh)
        if options.max_forgetting is not None:
            gate(summary, options.max_forgetting)
    except ContinualError as error:
        # From a Ray task it comes wrapped, with the task's traceback as its text.
        plain = getattr(error, "cause", error)
        print(f"error: {plain}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        stopped = Interrupted("interrupted; the same command goes on where it stopped")
        print(f"error: {stopped}", file=sys.stderr)
        return stopped.exit_code
    return 0


def gate(summary: dict[str, Any], limit: float) -> None:
    """Raises ForgotTooMuch if the larger of `forgetting` and `forgetting_old` is above `limit`."""
    found = {key: summary[key] for key in ("forgetting", "forgetting_old") if summary.get(key) is not None}
    worst = max(found, key=lambda key: found[key], default=None)
    if worst is not None and found[worst] > limit:
        raise ForgotTooMuch(f"{worst} {found[worst]:.4f} is more than --max-forgetting {limit}")


def execute(
    loaded: Loaded, notes: list[str], fresh: bool, after_stage: Callable[[int], None] = lambda stage: None
) -> dict[str, Any]:
    """Run or resume the sequence; a finished run returns its summary at once, without torch or ray.

    `after_stage(stage)` is called after every stage of a run that is not finished, the earlier ones of a resumed run
    included.
    """
    from continual.resume import catch_up, claim, finished

    folder = loaded.run_folder
    if not fresh and (summary := finished(folder, loaded)) is not None:
        from continual.terminal import closing, colours

        catch_up(loaded, summary)
        print(closing(summary, folder, colours(sys.stdout)))
        return summary
    with claim(folder, loaded, fresh) as ledger:
        from continual.drive import drive

        return drive(loaded, folder, ledger, notes, after_stage)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries must not hold up the end of a driver that has said its last word.
    os._exit(code)
