"""Asynchronous inference: a picture is taken in at once, classified when its turn comes, and its sender is told.

`lifecycle` says what may happen to a job, `rows` keeps it, `work` runs it, `child` looks at the picture where it can
hurt nobody, `notices` tell the sender.
"""
