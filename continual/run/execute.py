"""Start or resume a run, or return the result of a finished one. Imports torch and ray only if there is work."""

import sys
from collections.abc import Callable
from typing import Any

from continual.config.load import Loaded
from continual.run.resume import catch_up, claim, finished


def execute(
    loaded: Loaded, notes: list[str], fresh: bool, after_stage: Callable[[int], None] = lambda stage: None
) -> dict[str, Any]:
    """Run or resume the sequence; return the summary of a finished run at once, without torch or ray.

    `after_stage(stage)` is called after every stage of an unfinished run, including those finished before this start.
    """
    folder = loaded.run_folder
    if not fresh and (summary := finished(folder, loaded)) is not None:
        from continual.run.found import changes
        from continual.show.tables import closing
        from continual.show.terminal import colors

        catch_up(loaded, summary)
        for change in changes(loaded):
            print(f"note: {change}")
        print(closing(summary, folder, colors(sys.stdout)))
        return summary
    with claim(folder, loaded, fresh) as ledger:
        from continual.run.drive import drive

        return drive(loaded, folder, ledger, [*notes, *ledger.loss], after_stage)
