"""The one error type that a user's input can raise."""


class SgdEscapeError(Exception):
    """Something the user can mend: the message says what was needed, what came and what to do."""
