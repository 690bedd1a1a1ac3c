"""`python -m continual.run seq.yaml [key=value ...]`."""

from continual.cli.main import leave
from continual.cli.run import main

leave(main())
