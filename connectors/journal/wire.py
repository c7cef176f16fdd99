"""What the journal process and its clients say to each other over the Unix socket.

A message is `size u32 | type u8 | number u64`, little endian, then `size` bytes. The socket
belongs to the plant's user alone (mode 0600); sizes are capped all the same, so that a peer that
is mad or stuck costs bounded memory.

client -> journal
    HELLO      number 0, body MessagePack {"session": bytes16, "name": text, "watch": bool}; may carry
               the descriptor of a memfd, the session's shared memory
    APPEND     number = sequence in the session, from 1, rising by one; body = key size u16 | key |
               packed frames entry
    SHARED     as APPEND, but the packed frames lie in the shared memory, in slot number % WINDOW:
               body = size u32 | key size u16 | key
    CONTROL    number = sequence; body = MessagePack [kind, data]
    DURABLE    number = entry up to which everything is durable elsewhere; no answer
    STATUS     number chosen by the client
journal -> client
    WELCOME    number = last sequence of the session that is in the journal
    ACK        number = sequence; body = position i64 | entry i64
    FULL       number = sequence: not taken now, nor anything after it; send again from it on
    REFUSED    number = sequence or 0; body = why; the connection ends
    WAKE       number = last entry of a commit (watchers; may skip some)
    ANSWER     number of the STATUS; body JSON
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

HELLO: Final = 1
APPEND: Final = 2
CONTROL: Final = 3
DURABLE: Final = 4
STATUS: Final = 5
SHARED: Final = 6
WELCOME: Final = 17
ACK: Final = 18
FULL: Final = 19
REFUSED: Final = 20
WAKE: Final = 21
ANSWER: Final = 22

HEAD: Final = struct.Struct("<IBQ")
ACK_BODY: Final = struct.Struct("<qq")
KEY_SIZE: Final = struct.Struct("<H")
SIZE: Final = struct.Struct("<I")
SLOT: Final = 2 << 20  # bytes of one append in shared memory
SHARED_FROM: Final = 32 << 10  # bytes of an append that are worth it
MAX_MESSAGE: Final = 40 << 20  # one frame of 16 MiB and its addresses; a plant bundle
MAX_HELLO: Final = 4096
WINDOW: Final = 64  # appends of one session in flight
SOCKET_BUFFER: Final = 4 << 20
SOCKET_NAME: Final = "journal.sock"


def message(kind: int, number: int, *body: bytes | bytearray) -> bytes:
    """One message, ready to be sent."""
    return b"".join((HEAD.pack(sum(map(len, body)), kind, number), *body))


def socket_path(data: Path) -> Path:
    """Where the journal of a data directory listens."""
    return data / "run" / SOCKET_NAME


class ShortPath:
    """A path of a socket that fits `sun_path` (107 bytes), however deep the folder is.

    A longer one is reached through the folder's descriptor; use as a context manager around bind
    or connect.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) < 104:
            return str(self._path)
        self._fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def connect(path: Path, timeout: float | None) -> socket.socket:
    """A connected socket; raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        with ShortPath(path) as short:
            sock.connect(short)
    except OSError:
        sock.close()
        raise
    return sock


def shared_memory() -> int:
    """A descriptor of WINDOW slots of memory; -1 where the system has no memfd. Its pages are taken
    when they are first used."""
    try:
        fd = os.memfd_create("penstock-journal", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return -1
    os.ftruncate(fd, WINDOW * SLOT)
    return fd


def is_memory(fd: int) -> bool:
    """Whether a descriptor that a peer sent is memory, so that reading it cannot block."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def listen(path: Path) -> socket.socket:
    """A listening socket with mode 0600, in place of one that a dead process left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        before = os.umask(0o177)
        try:
            with ShortPath(path) as short:
                sock.bind(short)
        finally:
            os.umask(before)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock
