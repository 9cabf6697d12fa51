"""What cameras are and how frames are read from them."""

import os as _os
from pathlib import Path as _Path

_SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
CA_FILE = _SYSTEM_CA_FILE if _Path(_SYSTEM_CA_FILE).is_file() else None
"""The certificate authorities that the system trusts (Debian's place), or None: each library's own list then."""

# Read by OpenCV's FFmpeg when it opens its first stream, so they stand here, before anybody can open one.
# TCP, since lost UDP packets are grey smears that a classifier takes for products; TLS certificates are checked,
# which FFmpeg leaves off; FFmpeg stays silent, for its lines name addresses and come on every retry.
_OPTIONS = ["rtsp_transport;tcp", "tls_verify;1"] + ([f"ca_file;{CA_FILE}"] if CA_FILE else [])
_os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "|".join(_OPTIONS))
_os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")  # seconds one grab from a USB camera waits
