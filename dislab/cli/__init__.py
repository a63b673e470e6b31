"""The command line. This file begins and ends the program; the commands are in `dislab.cli.app`.

Ctrl-C may come at any moment, also while torch is imported: nothing is imported before `main` can answer it.
"""

RESUME = "run the same command to resume"
EXIT_CODE = 128  # of a program that a signal ends, plus the signal's number


def main(arguments=None) -> int:
    """Run the command line and return its exit code; whatever goes wrong is one line on standard error.

    Parameters
    ----------
    arguments : list of str; None takes those of the program, which must end after this call: the signals that
        end programs are ignored from then on.
    """
    try:
        from dislab import signals, streams

        with signals.raised(to_the_end=arguments is None), streams.guarded() as error_of_output:
            try:
                from dislab.cli.app import do

                code = do(arguments)
            except KeyboardInterrupt:
                code = EXIT_CODE + signals.SIGINT
            return _end(code, signals.ignored(), error_of_output)
    except KeyboardInterrupt:  # in the first milliseconds, or once more in the last
        import os
        from contextlib import suppress

        with suppress(OSError):
            os.write(2, f"dislab: interrupted; {RESUME}\n".encode())
        return EXIT_CODE + 2


def _end(code: int, number: int, error_of_output) -> int:
    """Say why the command ended, if no line has said so; return its exit code."""
    from signal import SIGINT, Signals

    from dislab.progress import say

    number = number or (SIGINT if code == EXIT_CODE + SIGINT else 0)
    if number:
        cause = "interrupted" if number == SIGINT else f"ended by {Signals(number).name}"
        say(f"dislab: {cause}; {RESUME}")
        return EXIT_CODE + number
    error = error_of_output()
    if error is not None:
        say(f"dislab: standard output cannot be written: {error.strerror}")
        return code or 1
    return code
