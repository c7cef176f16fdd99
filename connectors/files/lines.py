"""Lines of a file's content, and rows that quotes hold together over several of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

HEAD: Final = 4096  # bytes kept of a line that is refused


class Line(NamedTuple):
    """What stands between two line ends (`\\n` or `\\r\\n`), without them.

    why: the line is refused, and `data` the beginning of it. number: of its first line in the file, from 1.
    end, lines: offset behind it, and how many lines have ended by then. ended: by a line end.
    """

    data: bytes
    why: str
    number: int
    end: int
    lines: int
    ended: bool


class Lines:
    """Lines from pieces of content. Memory is bounded by `cap` and the pieces.

    at, lines: the offset of the first piece, and how many line ends stand before it.
    """

    def __init__(self, pieces: Iterable[bytes], cap: int, at: int = 0, lines: int = 0) -> None:
        self._pieces = iter(pieces)
        self._cap = cap
        self._buffer = b""
        self._from = 0  # of the buffer
        self._slow_to = 0  # up to which offset lines are looked at one by one
        self._open_to = 0  # up to which offset a quote that is open stays open
        self.at = at
        self.lines = lines

    def skip_to(self, offset: int, give_up: Callable[[], bool]) -> bool:
        """Pass lines up to an offset behind a line end, counting them; False: given up before."""
        while self.at < offset:
            if give_up() or not (self._from < len(self._buffer) or self._fill()):
                return False
            stop = min(len(self._buffer), self._from + offset - self.at)
            self.lines += self._buffer.count(b"\n", self._from, stop)
            self.at += stop - self._from
            self._from = stop
        return True

    def line(self) -> Line | None:
        """The next line; None at the end."""
        return self._next(None)

    def row(self, quotes: Quotes) -> Line | None:
        """The next row of CSV: line ends within quotes belong to it. A quote that is not closed within
        the cap costs its line alone."""
        return self._next(quotes)

    def plain(self, *, quotes: bool) -> list[tuple[bytes, int, int]]:
        """Many lines at once, as (data, number, end): those of the buffer that have ended, where all are
        within the cap and, if quotes matter, none has any; else nothing, and `line` or `row` goes on."""
        if self.at < self._slow_to:
            return []
        begin, stop = self._from, self._buffer.rfind(b"\n") + 1
        if stop <= begin:
            return []
        pieces = (
            []
            if quotes and self._buffer.find(b'"', begin, stop) >= 0
            else self._buffer[begin:stop].split(b"\n")
        )
        if not pieces or len(max(pieces, key=len)) > self._cap:
            self._slow_to = self.at + stop - begin
            return []
        pieces.pop()
        found, at, number = [], self.at, self.lines
        for data in pieces:
            at += len(data) + 1
            number += 1
            found.append((data[:-1] if data.endswith(b"\r") else data, number, at))
        self.at, self.lines, self._from = at, number, stop
        return found

    def _next(self, quotes: Quotes | None) -> Line | None:
        behind = self._behind(0)
        if behind == 0:
            return None
        if behind < 0:
            return self._too_long()
        why, data = "", self._between(0, behind)
        if len(data) > self._cap:
            why = self._beyond()
        elif quotes is not None and b'"' in data and quotes.opens(data, inside=False):
            whole = self._closing(behind, quotes)
            if whole:
                behind, data = whole, self._between(0, whole)
            else:
                why = f"a quote that is not closed within {self._cap} bytes"
        ended = self._buffer[self._from + behind - 1] == 10
        return self._taken(behind, data[: min(HEAD, self._cap)] if why else data, why, ended)

    def _taken(self, behind: int, data: bytes, why: str, ended: bool) -> Line:
        number = self.lines + 1
        self.lines += self._buffer.count(b"\n", self._from, self._from + behind)
        self.at += behind
        self._from += behind
        return Line(data, why, number, self.at, self.lines, ended)

    def _beyond(self) -> str:
        return f"a line of more than {self._cap} bytes"

    def _too_long(self) -> Line:
        """A line that is longer than the buffer may become: pass it piece by piece."""
        data, number = self._buffer[self._from : self._from + HEAD], self.lines + 1
        while True:
            found = self._buffer.find(b"\n", self._from)
            if found >= 0:
                taken = self._taken(found + 1 - self._from, b"", "", True)
                return Line(data[: self._cap], self._beyond(), number, taken.end, taken.lines, True)
            self.at += len(self._buffer) - self._from
            self._from = len(self._buffer)
            if not self._fill():
                return Line(data[: self._cap], self._beyond(), number, self.at, self.lines, False)

    def _closing(self, behind: int, quotes: Quotes) -> int:
        """How far the row goes whose first line ends `behind` bytes on, within a quote; 0: too far."""
        at = max(behind, self._open_to - self.at)
        while at <= self._cap:
            end = self._behind(at)
            if end <= at:
                break
            if not quotes.opens(self._between(at, end), inside=True):
                return end if len(self._between(0, end)) <= self._cap else 0
            at = end
            # any quote that is open at a line end before this one stays open as well
            self._open_to = max(self._open_to, self.at + at)
        return 0

    def _behind(self, begin: int) -> int:
        """How far the end of the line is that begins `begin` bytes on, its line end included; `begin`
        itself: there is no such line. -1: it is beyond the cap."""
        seen = begin
        while True:
            found = self._buffer.find(b"\n", self._from + seen)
            if found >= 0:
                return found + 1 - self._from
            seen = len(self._buffer) - self._from
            if seen > self._cap + 2:
                return -1
            if not self._fill():
                return seen

    def _between(self, begin: int, end: int) -> bytes:
        data = self._buffer[self._from + begin : self._from + end]
        if data.endswith(b"\n"):
            return data[:-2] if data.endswith(b"\r\n") else data[:-1]
        return data

    def _fill(self) -> bool:
        """One piece more; False at the end."""
        for piece in self._pieces:
            if piece:
                self._buffer = self._buffer[self._from :] + piece
                self._from = 0
                return True
        return False


class Quotes:
    """Where quotes begin and end after RFC 4180: one opens at the beginning of a cell alone, and `""`
    within it is none. separators: any of these characters ends a cell."""

    def __init__(self, separators: str) -> None:
        one = b"[" + re.escape(separators.encode()) + b"]"
        self._cell = re.compile(rb"(?:\A|" + one + rb')"')
        self._later = re.compile(one + b'"')

    def opens(self, line: bytes, *, inside: bool) -> bool:
        """Whether a quote is open at the end of a line that begins within one, or not."""
        at = 0
        if not inside:
            found = self._cell.match(line) or self._later.search(line)
            if found is None:
                return False
            at = found.end()
        while True:
            at = line.find(b'"', at)
            if at < 0:
                return True
            if line[at + 1 : at + 2] == b'"':
                at += 2
                continue
            found = self._later.search(line, at + 1)
            if found is None:
                return False
            at = found.end()
