"""What holds for all tests."""

import models  # noqa: F401 - before any runtime is loaded: it sees to it that none of them sends usage events
