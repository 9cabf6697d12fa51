"""The night's files: what one is (`form`), how one is judged (`judge`), and how they are taken in (`intake`)."""
