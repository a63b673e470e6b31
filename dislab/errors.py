"""The errors and remarks that dislab shows to its user as one line, without a traceback."""


class DislabError(Exception):
    """Something in the user's input is wrong; the message says what, and what would be right."""

    exit_code = 2


class RunFailed(DislabError):
    """The input was fine, but a run or a metric failed (a loss that turned NaN, a disk that filled up)."""

    exit_code = 1


class DislabWarning(UserWarning):
    """A remark on a result; it stops nothing."""


def line_within(error: BaseException, file_name: str) -> int | None:
    """The last line of a file in the error's traceback."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file_name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
