"""What holds for all tests."""

import models as models  # before any runtime is loaded: it sees to it that none of them sends usage events
