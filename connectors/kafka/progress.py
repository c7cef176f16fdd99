"""How far a Kafka source has read, kept beside the journal, so that each message is in it exactly once.

Before frames are handed to the journal, a line of this file says which offsets they are of, and under
which key they are appended; it is on disk before the append leaves. After a crash those appends whose
end is not known are made again, of the same offsets under the same key, and the journal leaves out
what it has.

The file is lines of JSON: first all that is known, then one line an append; it is written anew once
it has grown. A line that a crash has torn stands for an append that never left.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from connectors.durable import sync_folder
from connectors.errors import ConfigError, JournalError

ANEW_BYTES: Final = 1 << 20


class Part(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Range(NamedTuple):
    """Offsets `first` to before `next` of a partition; some of them may hold no message."""

    topic: str
    partition: int
    first: int
    next: int


class Planned(msgspec.Struct, array_like=True):
    """An append: its number, which names it, the offsets of its frames, and the newest number up to
    which all were durable when it was planned."""

    number: int
    ranges: list[Range]
    durable: int


class Known(msgspec.Struct):
    """The first line. offsets: next of each partition that is durable; planned: what may be under way;
    topics: name -> the brokers' identifier; seen: what `topic` of the configuration has been looked
    for, so that what comes later is new."""

    claim: str
    number: int = 0
    offsets: list[tuple[str, int, int]] = []
    planned: list[Planned] = []
    topics: dict[str, str] = {}
    seen: list[str] = []


class Progress:
    """The file of one source. Planning is one thread's, `done` any other's.

    planned: the appends that were under way when the last process ended, oldest first; they are to be
    made again before anything else. offsets: where reading goes on behind them.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file, or begins a new one. Raises ConfigError."""
        self._path = path
        self._lock = threading.Lock()
        self._durable = 0
        self._under_way: dict[int, list[Range]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            known, lines = _load(path)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        self.is_new = known is None
        known = known or Known(uuid.uuid4().hex)
        self.claim = known.claim
        self.topics, self.seen = dict(known.topics), set(known.seen)
        planned = [*known.planned, *lines]
        durable = max((line.durable for line in lines), default=0)
        self._number = max([known.number, *(line.number for line in planned)])
        self._durables: dict[Part, int] = {Part(t, p): at for t, p, at in known.offsets}
        self.planned = [line for line in planned if line.number > durable]
        for line in planned:
            if line.number <= durable:
                self._reached(line.ranges)
        self._under_way = {line.number: line.ranges for line in self.planned}
        self._file: int | None = None
        self._size = 0

    @property
    def offsets(self) -> dict[Part, int]:
        """Next offset of each partition, behind all that is planned."""
        with self._lock:
            found = dict(self._durables)
            for ranges in self._under_way.values():
                found |= {Part(r.topic, r.partition): r.next for r in ranges}
        return found

    @property
    def durables(self) -> dict[Part, int]:
        """Next offset of each partition, behind all that is in the journal."""
        with self._lock:
            return dict(self._durables)

    def key(self, number: int) -> str:
        """Names the append of a number for ever."""
        return f"kafka:{self.claim}:{number}"

    def plan(self, appends: Sequence[Sequence[Range]]) -> list[int]:
        """The numbers of these appends, which may leave now: they are noted on disk. Raises JournalError."""
        with self._lock:
            numbers = list(range(self._number + 1, self._number + 1 + len(appends)))
            made = [Planned(n, list(r), self._durable) for n, r in zip(numbers, appends, strict=True)]
            self._number = numbers[-1] if numbers else self._number
            self._under_way |= {line.number: line.ranges for line in made}
        if self._file is None or self._size > ANEW_BYTES:
            self.save()
            return numbers
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in made)
        try:
            os.write(self._file, text)
            os.fdatasync(self._file)
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}") from error
        self._size += len(text)
        return numbers

    def done(self, numbers: Iterable[int]) -> None:
        """These appends are in the journal, and all before them."""
        with self._lock:
            for number in numbers:
                self._reached(self._under_way.pop(number, []))
                self._durable = max(self._durable, number)

    def move(
        self, offsets: Mapping[Part, int], topics: Mapping[str, str] | None = None, seen: Iterable[str] = ()
    ) -> None:
        """Reading goes on at these offsets, whatever stood before; nothing of their partitions may be under
        way. On disk when it returns. Raises JournalError."""
        with self._lock:
            self._durables |= offsets
            self.topics |= topics or {}
            self.seen |= set(seen)
        self.save()

    def forget(self, topic: str) -> None:
        """All that was known of a topic, which is another one now; it is not noted before the next `move`."""
        with self._lock:
            for line in self.planned:
                line.ranges = [r for r in line.ranges if r.topic != topic]
            self._durables = {part: at for part, at in self._durables.items() if part.topic != topic}
            self._under_way = {
                number: [r for r in ranges if r.topic != topic] for number, ranges in self._under_way.items()
            }
            self.topics.pop(topic, None)

    def save(self) -> None:
        """Write the file anew. Raises JournalError."""
        with self._lock:
            known = Known(
                self.claim,
                self._number,
                [(*part, at) for part, at in self._durables.items()],
                [Planned(n, ranges, 0) for n, ranges in self._under_way.items()],
                self.topics,
                sorted(self.seen),
            )
        text = msgspec.json.encode(known) + b"\n"
        beside = self._path.with_suffix(".new")
        try:
            with beside.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
            sync_folder(self._path.parent)
            self.close()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}") from error
        self._size = len(text)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def is_settled(self) -> bool:
        """Whether all that was planned is durable."""
        with self._lock:
            return not self._under_way

    def _reached(self, ranges: Iterable[Range]) -> None:
        for one in ranges:
            self._durables[Part(one.topic, one.partition)] = one.next


def _load(path: Path) -> tuple[Known | None, list[Planned]]:
    try:
        head, *lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None, []
    lines = lines[:-1]  # behind the last end of a line stands what a crash has torn
    try:
        return msgspec.json.decode(head, type=Known), [
            msgspec.json.decode(line, type=Planned) for line in lines
        ]
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}; remove it, and reading begins where 'start' says") from error
