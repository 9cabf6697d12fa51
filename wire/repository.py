"""How a repository of models is laid out, for whoever fills it and whoever reads it: plain files on any web server.

    metadata/timestamp.json, N.snapshot.json, N.targets.json, N.root.json     TUF metadata (consistent snapshots)
    targets/models/NAME/RELEASE/SHA256.bundle.json                           the only targets
    blobs/SHA256                                                             the files that bundles name

Blobs are no targets: they are trusted through the bundle.json that names them, and shared by all that do.
"""

from typing import Final

METADATA: Final = "metadata"
TARGETS: Final = "targets"
BLOBS: Final = "blobs"

SIGNED_AT: Final = "x-shelfwire-signed-at"
"""A field in the timestamp: when it was signed, in RFC 3339. It is the floor of a device's clock."""

MOST_MANIFEST_BYTES: Final = 4 << 20
MOST_BLOB_BYTES: Final = 2 << 30


def bundle_target(name: str, release: int) -> str:
    """The target that holds the manifest of a bundle."""
    return f"models/{name}/{release}/bundle.json"
