"""Why a message was refused."""


class WireError(ValueError):
    """A message that breaks the contract. `code` goes into receipts and quarantine rows; `hint` names the cure."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
