"""`python -m continual.report RUN_DIR [RUN_DIR ...] [--output FILE]`."""

from continual.cli.main import leave
from continual.cli.report import main

if __name__ == "__main__":
    leave(main())
