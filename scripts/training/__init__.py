"""What `scripts/train` is made of: photos, rendered scenes, the network, the loop, the bundle."""

import models as models  # before any runtime is loaded: it sees to it that none of them sends usage events
