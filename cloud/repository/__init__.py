"""The repository of models: keys, signed metadata, bundles published, and the daily signature that keeps it alive."""

from cloud.repository.ceremony import Keys
from cloud.repository.folder import Published, RepositoryFolder
from cloud.repository.publish import publish, unpublish

__all__ = ["Keys", "Published", "RepositoryFolder", "publish", "unpublish"]
