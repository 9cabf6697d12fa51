"""Limits of everything that crosses the wire. A remote input is measured against these before it is parsed."""

ENVELOPE_BYTES = 256 * 1024
"""Largest envelope."""

ENVELOPE_RECORDS = 500
"""Most records in one envelope."""

SEND_BYTES = 128 * 1024
"""What a sender aims for: half the limit, so that one more record never tips it over."""

SEND_RECORDS = 100
"""Records per envelope that make the strict delivery chain cheap."""

THUMBNAIL_BYTES = 40 * 1024
"""Largest JPEG inside a record, before base64."""

PICTURE_BYTES = 96 * 1024
"""Largest JPEG on the `pictures` topic, before base64."""

DEPTH = 16
"""Deepest nesting of a JSON document."""

LABELS = 10
"""Most labels with scores in one result."""

TEXT = 256
"""Longest free text, in characters."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Device ids, camera names and rule names: safe in a topic, a path and a certificate's CN."""

RUN = r"^[0-9a-f]{16}$"
"""8 random bytes per process start, in hexadecimal."""

SEQ_MAX = 2**63 - 1
"""Largest sequence number: what an SQLite and a PostgreSQL integer hold."""

CONFIG_CHARACTERS = 64 * 1024
"""Longest configuration that the cloud may order."""

REPORT_NUMBERS = 32
"""Most figures in one report of an update."""

REPORT_LABELS = 20
"""Most labels in the disagreement of two models, the worst first."""
