"""The device's own page and API, served by vision: HTTP for a handful of clients, the page, and Open Inference v2."""
