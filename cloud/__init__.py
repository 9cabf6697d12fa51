"""The cloud: ingest, store, pages."""
