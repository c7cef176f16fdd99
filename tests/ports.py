"""TCP ports of 127.0.0.1 for servers of tests, each of one process alone.

A port that the system names (bind to 0) may be given to an outgoing connection, or named to another
process, before the server that it was asked for listens on it. These come from below the range of outgoing
connections, and a lock file holds each for as long as the process that asked for it lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from flows.broker import is_free

LOWEST = 15_000
LOCKS = Path(tempfile.gettempdir()) / f"penstock-test-ports-{os.getuid()}"


def _candidates() -> Iterator[int]:
    above = 32_768
    with suppress(OSError):  # not Linux
        above = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = list(range(LOWEST, max(above, LOWEST + 5_000)))
    random.SystemRandom().shuffle(ports)
    yield from ports


_left = _candidates()
_held: list[IO[bytes]] = []


def free_port() -> int:
    """A port that nobody listens on, and that no other process gets from here."""
    LOCKS.mkdir(exist_ok=True)
    for port in _left:
        lock = (LOCKS / str(port)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if is_free(port):
            _held.append(lock)
            return port
        lock.close()
    raise AssertionError("no port is left")
