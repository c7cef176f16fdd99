"""Frames of unknown devices that wait until their device is known (`devices.unknown: hold`).

State of the decode stage, capped by `limits.held` and `limits.held_bytes`; all in the order of the
journal, so that what waits, is taken in or is given up is a function of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby, islice
from typing import Any, Final, NamedTuple

from operators.batch import Address, Waiting

TOLD: Final = 1_000  # devices that are told by name


class HeldFrame(NamedTuple):
    """A frame that waits, or of one that names several devices the readings of one of them. productId: under
    which the ledger has it, "" where its address does not say. only: which of its readings they are; none:
    all. sole: whether the ledger has the frame among those that wait, as nothing of it was taken in."""

    position: int
    ingest_ns: int
    device: str
    productId: str
    address: Address
    flags: int
    payload: bytes
    line: int = 0  # in the file that it came from; 0: none
    only: tuple[int, ...] = ()
    sole: bool = True

    @property
    def key(self) -> tuple[int, str]:
        return self.position, self.device


class HeldFrames:
    """What waits; `size` counts the bytes of the payloads."""

    def __init__(self) -> None:
        self._frames: dict[tuple[int, str], HeldFrame] = {}  # by position, rising, and device
        self._parts: dict[int, list[str]] = {}  # devices of the frames that wait in parts
        self._of: dict[str, list[int]] = {}
        self.size = 0
        self.changed = False  # since it was last told

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def devices(self) -> Collection[str]:
        """Those that are waited for, the longest first."""
        return self._of.keys()

    def hold(self, frame: HeldFrame) -> None:
        """One frame more, of no earlier position than all that wait."""
        self._frames[frame.key] = frame
        if frame.only:
            self._parts.setdefault(frame.position, []).append(frame.device)
        self._of.setdefault(frame.device, []).append(frame.position)
        self.size += len(frame.payload)
        self.changed = True

    def release(self, devices: Collection[str]) -> list[HeldFrame]:
        """The frames of some devices, in the order of the journal; they wait no more. What was held of one
        frame for several of them comes as one."""
        found: dict[int, HeldFrame] = {}
        for key in sorted((at, device) for device in devices for at in self._of.pop(device, ())):
            one = self._take(key)
            before = found.get(one.position)
            if before is not None:
                one = before._replace(only=tuple(sorted(before.only + one.only)))
            found[one.position] = one
        for position in found:
            for device in self._parts.get(position, ()):  # what waits on is of a frame that was taken in
                self._frames[position, device] = self._frames[position, device]._replace(sole=False)
        return list(found.values())

    def expire(self, upto_ns: int) -> list[list[HeldFrame]]:
        """Those that came at `upto_ns` or before, what was held of one frame together; they wait no more."""
        over: list[HeldFrame] = []
        for frame in self._frames.values():
            if frame.ingest_ns > upto_ns:
                break
            over.append(frame)
        for frame in over:
            self._take(frame.key)
            mine = self._of[frame.device]
            mine.remove(frame.position)
            if not mine:
                del self._of[frame.device]
        return [list(parts) for _, parts in groupby(over, key=lambda frame: frame.position)]

    def _take(self, key: tuple[int, str]) -> HeldFrame:
        frame = self._frames.pop(key)
        if frame.only:
            self._parts[frame.position].remove(frame.device)
            if not self._parts[frame.position]:
                del self._parts[frame.position]
        self.size -= len(frame.payload)
        self.changed = True
        return frame

    def told(self) -> list[Waiting]:
        """The devices that are waited for, the longest first."""
        return list(islice(self._told(), TOLD))

    def _told(self) -> Iterator[Waiting]:
        for device, positions in self._of.items():
            first = self._frames[positions[0], device]
            size = sum(len(self._frames[position, device].payload) for position in positions)
            yield Waiting(
                device,
                first.address.source,
                first.address.topic,
                first.productId,
                len(positions),
                size,
                first.ingest_ns,
            )

    def export(self) -> list[Any]:
        """What a snapshot holds."""
        return [list(frame) for frame in self._frames.values()]

    def load(self, state: list[Any]) -> None:
        """Take over what `export` gave."""
        self._frames, self._of, self._parts, self.size = {}, {}, {}, 0
        for position, ingest_ns, device, productId, address, flags, payload, *rest in state:
            source, topic, port, headers = address
            where = Address(source, topic, port, tuple((name, value) for name, value in headers))
            if len(rest) > 1:
                rest[1] = tuple(rest[1])
            self.hold(HeldFrame(position, ingest_ns, device, productId, where, flags, payload, *rest))


def sums(frames: Collection[HeldFrame]) -> Mapping[tuple[str, str, bool], int]:
    """How many frames, by source, product, and whether the ledger has them among those that wait."""
    return Counter((frame.address.source, frame.productId, frame.sole) for frame in frames)
