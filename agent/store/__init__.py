"""The outbox and local state: the only importer of sqlite."""
