"""Whether somebody is still writing a file."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path


def is_open_for_writing(path: Path) -> bool:
    """Whether a process of this machine has a file open for writing. False also where the system does not
    tell: a file of another user, one on a network file system. Raises OSError where it cannot be read.

    Linux grants a read lease only on a file that nobody has open for writing (fcntl(2), F_SETLEASE). Who
    opens it for writing in the microseconds until the lease is given back waits so long.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # of which nothing comes; of SIGIO an end would
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(handle)  # which gives the lease back
    return False
