"""`python -m continual.run seq.yaml [key=value ...]`."""

from continual.cli.run import main
from continual.errors.process import leave

leave(main())
