"""Errors of the device, named by who must act. Each carries a code to read aloud and the cure."""


class ShelfwireError(Exception):
    """Base of the device's own errors.

    `code` is short and stable (``camera-auth``): people read it out, programs compare it. `hint` says what to do.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class Retryable(ShelfwireError):
    """Nobody needs to act: the same thing may work later, after a backoff."""

    exit_code = 3


class Rejected(ShelfwireError):
    """Whoever gave this input must change it; trying again gives the same answer."""

    exit_code = 2


class Broken(ShelfwireError):
    """Something on this device needs a person: a disk, a file, an installation."""

    exit_code = 4
