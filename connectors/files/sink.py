"""alarms.jsonl: every alarm event as a line, each exactly once, whatever was killed when.

Beside the cursors stands a note: at this size of the file, records up to this number are in it.
Lines behind that size are whole records that were written after the note, one each; a line cut
short by a crash is cut off. So after SIGKILL the file itself tells where to go on. The file may be
moved away or emptied while the drainer runs or rests: writing goes on in a new one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from connectors.durable import replace_durably
from connectors.errors import ConnectError, DeliveryError
from connectors.sink import OutputRecord

CHUNK: Final = 1 << 20


class _Note(msgspec.Struct):
    identity: str
    number: int
    size: int
    inode: int


class AlarmsFile:
    """The target `alarms-file`. identity: of the output log that it is fed from."""

    kinds: tuple[str, ...] = ("alarms",)

    def __init__(self, path: Path, note: Path, identity: str) -> None:
        self.path = path
        self._note_path = note
        self._identity = identity
        self._file = -1
        self._inode = 0
        self._size = 0
        self._number = 0

    def open(self) -> dict[str, int] | None:
        """See `Target`."""
        self.close()
        try:
            note = self._read_note()
            self._number = note.number if note is not None else 0
            self._open_file()
            if note is not None and note.inode == self._inode and note.size <= self._size:
                self._number += self._lines_from(note.size)
            self.settle()
        except OSError as error:
            self.close()
            raise ConnectError(f"cannot write {self.path}: {error.strerror}") from error
        return {"alarms": self._number} if note is not None else None

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Append; a write that the disk cuts short is taken back."""
        body = b"".join(record.body + b"\n" for record in records)
        try:
            if self._was_moved():
                self._open_file()
                self.settle()
            view = memoryview(body)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise DeliveryError(f"cannot write {self.path}: {error.strerror}") from error
        self._size += len(body)
        self._number = records[-1].number

    def settle(self) -> None:
        """See `RememberingTarget`."""
        if self._file < 0:
            return
        os.fsync(self._file)
        note = _Note(self._identity, self._number, self._size, self._inode)
        replace_durably(self._note_path, msgspec.json.encode(note))

    def close(self) -> None:
        """See `Target`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._inode = os.fstat(self._file).st_ino
        self._size = self._end_of_last_line()
        os.ftruncate(self._file, self._size)

    def _read_note(self) -> _Note | None:
        with suppress(OSError, msgspec.MsgspecError):
            note = msgspec.json.decode(self._note_path.read_bytes(), type=_Note)
            return note if note.identity == self._identity else None
        return None

    def _was_moved(self) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        if there.st_ino != self._inode:
            return True
        self._size = min(self._size, there.st_size)  # emptied in place: O_APPEND goes on at the end
        return False

    def _end_of_last_line(self) -> int:
        end = os.fstat(self._file).st_size
        while end:
            start = max(0, end - CHUNK)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _lines_from(self, at: int) -> int:
        lines = 0
        while chunk := os.pread(self._file, CHUNK, at):
            lines += chunk.count(b"\n")
            at += len(chunk)
        return lines
