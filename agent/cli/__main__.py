"""`python -m agent.cli` is `shelfwire-agent`."""

import sys

from agent.cli import main

sys.exit(main())
