"""What can go wrong in training that the person at the keyboard can cure."""


class TrainError(Exception):
    """Training cannot start or go on; `hint` is the cure, `code` a short name for scripts."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
