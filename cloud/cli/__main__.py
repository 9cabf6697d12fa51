"""`python -m cloud.cli` is `shelfwire-cloud`."""

import sys

from cloud.cli import main

sys.exit(main())
