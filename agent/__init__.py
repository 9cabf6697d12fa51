"""The device: cameras, the classifier, the outbox and the way to the cloud."""

import models as _models  # sets the limits of the picture decoder before anything imports cv2

__all__: list[str] = []
del _models
