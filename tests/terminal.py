"""Commands in a terminal of their own, of a given width."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def in_terminal(command: list[str], columns: int, with_errors: bool = True) -> list[str]:
    """Run a command in a terminal, which must succeed; return what it showed, each update as a line.

    Parameters
    ----------
    with_errors : whether standard error is the terminal too.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs if with_errors else subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment | {"TERM": "xterm"}, **streams) as process:
        os.close(theirs)
        content = b""
        try:
            while part := os.read(ours, 2**16):
                content += part
        except OSError:  # the terminal's end on Linux
            pass
    os.close(ours)
    text = ESCAPES.sub("", content.decode())
    assert process.returncode == 0, text
    return [line.rstrip() for line in re.split(r"\r\n|\r|\n", text)]
