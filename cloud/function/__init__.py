"""The serverless function: one pure function, a thin entry per platform, and a local host that scales from zero."""
