"""The two errors that dislab shows to its user as one line, without a traceback."""


class DislabError(Exception):
    """Something in the user's input is wrong; the message says what, and what would be right."""

    exit_code = 2


class RunFailed(DislabError):
    """The input was fine, but a run or a metric failed (a loss that turned NaN, a disk that filled up)."""

    exit_code = 1
