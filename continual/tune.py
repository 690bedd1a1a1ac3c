"""`python -m continual.tune ablation.yaml [key=value ...]`."""

from continual.cli.main import leave
from continual.cli.tune import main

if __name__ == "__main__":
    leave(main())
