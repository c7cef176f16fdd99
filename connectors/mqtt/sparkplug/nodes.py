"""What is known of edge nodes and their devices: births, aliases, sequence numbers.

Times are handed in, so that all of this can be played through: `now` is seconds of a clock that
never goes back.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

RECENT: Final = 64  # messages that are known again when they are repeated
SEQUENCES: Final = 256


class Device(msgspec.Struct):
    """A device, or the edge node itself. names: metric -> datatype, as its last birth says; aliases:
    number -> metric. there: between its birth and its death. born: since its node's last birth.
    newest_ms: of its values."""

    names: dict[str, int] = {}
    aliases: dict[int, str] = {}
    there: bool = False
    born: bool = False
    newest_ms: int = 0


class Node:
    """One edge node, followed through its sequence numbers.

    expected: the number of its next message, None while that is not known. doubtful: a message is
    missing since its last birth, or none was heard since this process began. devices: by name, the
    node itself under "".
    """

    __slots__ = (
        *("group", "name", "bd_seq", "expected", "there", "doubtful", "devices", "missing"),
        *("born_at", "confirmed", "wanted", "ask_at", "pause", "_recent"),
    )

    def __init__(self, group: str, name: str) -> None:
        self.group, self.name = group, name
        self.bd_seq: int | None = None
        self.expected: int | None = None
        self.there = False
        self.doubtful = True
        self.devices: dict[str, Device] = {}
        self.missing: dict[int, float] = {}  # number -> since when
        self.born_at: float | None = None  # until its devices' births are due
        self.confirmed = False  # since the connection to the broker
        self.wanted = False  # a birth, that is
        self.ask_at = 0.0  # not before
        self.pause = 0.0  # until the question after the next
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT)

    def device(self, name: str) -> Device:
        """The device of this name, made where there is none."""
        if name not in self.devices:
            self.devices[name] = Device()
        return self.devices[name]

    def born(self, seq: int, bd_seq: int | None, now: float) -> None:
        """An NBIRTH: a new session of the node, or a new account of the same."""
        self.bd_seq = bd_seq
        self.expected = (seq + 1) % SEQUENCES
        self.there = self.confirmed = True
        self.doubtful = self.wanted = False
        self.missing.clear()
        self._recent.clear()
        self.born_at = now
        for device in self.devices.values():
            device.born = False
            device.aliases = {}

    def follow(self, seq: int, mark: int, now: float) -> bool:
        """Any other message with a sequence number; mark: a hash of it. False: it was seen before.

        Numbers that are passed over are missing from now on; a message that only came late takes
        its own number out of them.
        """
        if (seq, mark) in self._recent:
            return False
        self._recent.append((seq, mark))
        if self.expected is None:
            self.expected = (seq + 1) % SEQUENCES
        elif seq == self.expected:
            self.expected = (seq + 1) % SEQUENCES
            self.confirmed = True
        elif self.missing.pop(seq, None) is None:
            while self.expected != seq:
                self.missing[self.expected] = now
                self.expected = (self.expected + 1) % SEQUENCES
            self.expected = (seq + 1) % SEQUENCES
        return True

    def lost(self, now: float, patience: float) -> int:
        """How many messages have been missing for longer than `patience` and are so given up."""
        gone = [seq for seq, since in self.missing.items() if now - since >= patience]
        for seq in gone:
            del self.missing[seq]
        if gone:
            self.doubtful = True
        return len(gone)

    def may_ask(self, now: float, first: float, longest: float) -> bool:
        """Whether a birth is wanted and may be asked for now; if so, the next question has to wait,
        from `first` on twice as long each time as long as no birth comes. A node that is not there
        is not asked again before something is heard of it."""
        if not self.wanted or now < self.ask_at:
            return False
        self.wanted = self.there
        self.pause = min(max(self.pause * 2, first), longest)
        self.ask_at = now + self.pause
        return True

    def answered(self, first: float) -> None:
        """A birth came: questions are as rare as at first again, and never more often."""
        self.pause = first / 2
