"""`python -m continual.associate associations.yaml [key=value ...]`."""

from continual.cli.associate import main
from continual.errors.process import leave

if __name__ == "__main__":
    leave(main())
