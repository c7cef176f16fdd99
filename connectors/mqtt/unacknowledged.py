"""What a receiver has handed to the journal and the broker may send again, kept for the next receiver.

A broker that gets no PUBACK sends the message again (DUP, with the same packet id). Within one
process the content's mark by packet id tells a repeat; this file tells it after the process has
been killed. It is mapped memory: what was written stands after SIGKILL. After a power loss it may
be older than the journal; a message in doubt is then a second entry, and never none.

A PUBACK that a busy broker has not read when this process dies may be lost with the connection. A
message whose content names it alone (Sparkplug's: a number and a time) is therefore known until
its packet id is another's; any other only until its PUBACK leaves, because from then on the same
content under the same id may be another message.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from connectors.errors import ConfigError
from operators.batch import Int64, UInt64

IDS: Final = 65_536  # packet ids are 16 bits
SESSIONS: Final = 256  # of the journal, as many as there are shards
_SESSION_BYTES: Final = 16
_MAGIC: Final = b"penstock unacknowledged 1\n".ljust(48, b"\0")
_NAME_BYTES: Final = 16  # which broker's session all of it is of
_KNOWN: Final = np.uint64(1 << 63)  # in the journal for certain, whatever session brought it
_UNIQUE: Final = np.uint64(1 << 62)  # no other message has this content
_NUMBER: Final = np.uint64((1 << 62) - 1)
_SIZE: Final = len(_MAGIC) + _NAME_BYTES + SESSIONS * _SESSION_BYTES + 2 * IDS * 8


class Unacknowledged:
    """By packet id the content's mark and the append that carries it: session and number.

    An entry counts only if the journal has that append. Of one thread.
    """

    def __init__(self, path: Path | None) -> None:
        """path: the file; None: nothing is kept. Raises `ConfigError` where it cannot be."""
        self._map = mmap.mmap(-1, _SIZE) if path is None else _mapped(path)
        if self._map[: len(_MAGIC)] != _MAGIC:
            self._map[:] = bytes(_SIZE)
            self._map[: len(_MAGIC)] = _MAGIC
        at = len(_MAGIC) + _NAME_BYTES
        self._sessions = np.frombuffer(self._map, np.uint8, SESSIONS * _SESSION_BYTES, at)
        self._sessions = self._sessions.reshape(SESSIONS, _SESSION_BYTES)
        at += self._sessions.size
        self._marks: UInt64 = np.frombuffer(self._map, np.uint64, IDS, at)
        # flags | number of the append << 8 | its session's place; 0: it has not left
        self._appends: UInt64 = np.frombuffer(self._map, np.uint64, IDS, at + self._marks.nbytes)
        self._places: dict[bytes, int] = {}

    async def recover(self, appended: Callable[[bytes], Awaitable[int]]) -> UInt64:
        """The marks, by packet id, of what an earlier receiver left in the journal and the broker may
        send again: uint64[65536], 0 for none. appended: see `connectors.source.Appender`."""
        there = np.flatnonzero((self._marks != 0) & (self._appends != 0) & (self._appends & _KNOWN == 0))
        places = (self._appends[there] & np.uint64(255)).astype(np.int64)
        good = np.zeros(len(there), bool)
        for place in np.unique(places).tolist():
            last = np.uint64(await appended(self._sessions[place].tobytes()))
            mine = places == place
            good[mine] = (self._appends[there[mine]] & _NUMBER) >> np.uint64(8) <= last
        self._marks[there[~good]] = 0
        self._appends[there[good]] = _KNOWN | self._appends[there[good]] & _UNIQUE
        # no entry names a session any more, so their places are free
        self._marks[self._appends == 0] = 0
        return self._marks.copy()

    def leaving(
        self,
        mids: Int64,
        marks: UInt64,
        unique: npt.NDArray[np.bool_],
        session: bytes,
        number: int,
    ) -> None:
        """These messages leave for the journal. To be called before they do. unique: bool[N], whether
        no other message has its content."""
        place = self._places.get(session)
        if place is None:
            place = len(self._places)
            if place == SESSIONS:
                raise ConfigError(f"more than {SESSIONS} shards")
            self._places[session] = place
            self._sessions[place] = np.frombuffer(session, np.uint8)
        # a mark beside an append of another message would take a message that never left for one that did
        self._marks[mids] = 0
        self._appends[mids] = np.uint64(number << 8 | place)
        self._appends[mids[unique]] |= _UNIQUE
        self._marks[mids] = marks

    def acknowledged(self, mids: Int64, marks: UInt64) -> Int64:
        """These are acknowledged; from here on the broker may give their ids to other messages. Returns
        the ids that are forgotten: all but those of unique content."""
        gone: Int64 = mids[(self._appends[mids] & _UNIQUE == 0) | (self._marks[mids] != marks)]
        self._marks[gone] = 0
        self._appends[gone] = 0
        return gone

    def begin(self, session: str, kept: bool) -> bool:
        """A connection to a session of this name begins; kept: the broker had it. If not, packet ids mean
        nothing any more. True: it had one at the last connection, and what it held in that one is gone."""
        name = hashlib.blake2b(session.encode(), digest_size=_NAME_BYTES).digest()
        at = len(_MAGIC)
        lost = not kept and self._map[at : at + _NAME_BYTES] == name
        if not kept:
            self._marks[:] = 0
            self._appends[:] = 0
        self._map[at : at + _NAME_BYTES] = name
        return lost


def _mapped(path: Path) -> mmap.mmap:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.seek(0, 2) != _SIZE:  # none yet, or cut: it tells nothing
                file.truncate(0)
                file.truncate(_SIZE)
            return mmap.mmap(file.fileno(), _SIZE)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
