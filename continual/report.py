"""`python -m continual.report RUN_DIR [RUN_DIR ...] [--output FILE]`."""

from continual.cli.report import main
from continual.errors.process import leave

if __name__ == "__main__":
    leave(main())
