"""`python -m continual.tune ablation.yaml [key=value ...]`."""

from continual.cli.tune import main
from continual.errors.process import leave

if __name__ == "__main__":
    leave(main())
