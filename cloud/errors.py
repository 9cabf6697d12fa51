"""Errors of the cloud, named by who must act. Each carries a code to read aloud and the cure."""


class CloudError(Exception):
    """Base of the cloud's own errors.

    `code` is short and stable (``store-away``): people read it out, programs compare it. `hint` says what to do.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class Retryable(CloudError):
    """Nobody needs to act: the same thing may work later, after a backoff."""

    exit_code = 3


class Rejected(CloudError):
    """Whoever gave this input must change it; trying again gives the same answer."""

    exit_code = 2


class Broken(CloudError):
    """Something on this machine needs a person: a disk, a file, an installation."""

    exit_code = 4
