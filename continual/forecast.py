"""`python -m continual.forecast --matrix associations.parquet --task task.yaml [key=value ...]`."""

from continual.cli.forecast import main
from continual.errors.process import leave

if __name__ == "__main__":
    leave(main())
