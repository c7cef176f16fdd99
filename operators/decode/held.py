"""Frames of unknown devices that wait until their device is known (`devices.unknown: hold`).

State of the decode stage, capped by `limits.held` and `limits.held_bytes`; all in the order of the
journal, so that what waits, is taken in or is given up is a function of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from operators.batch import Address, Waiting

TOLD: Final = 1_000  # devices that are told by name


class HeldFrame(NamedTuple):
    """A frame that waits. productId: under which the ledger has it, "" where its address does not say."""

    position: int
    ingest_ns: int
    device: str
    productId: str
    address: Address
    flags: int
    payload: bytes
    line: int = 0  # in the file that it came from; 0: none


class HeldFrames:
    """What waits; `size` counts the bytes of the payloads."""

    def __init__(self) -> None:
        self._frames: dict[int, HeldFrame] = {}  # by position, rising
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
        """One frame more, of a later position than all that wait."""
        self._frames[frame.position] = frame
        self._of.setdefault(frame.device, []).append(frame.position)
        self.size += len(frame.payload)
        self.changed = True

    def release(self, devices: Collection[str]) -> list[HeldFrame]:
        """The frames of some devices, in the order of the journal; they wait no more."""
        found = sorted(position for device in devices for position in self._of.pop(device, ()))
        return [self._take(position) for position in found]

    def expire(self, upto_ns: int) -> list[HeldFrame]:
        """Those that came at `upto_ns` or before; they wait no more."""
        over: list[HeldFrame] = []
        for frame in self._frames.values():
            if frame.ingest_ns > upto_ns:
                break
            over.append(frame)
        for frame in over:
            self._take(frame.position)
            mine = self._of[frame.device]
            mine.remove(frame.position)
            if not mine:
                del self._of[frame.device]
        return over

    def _take(self, position: int) -> HeldFrame:
        frame = self._frames.pop(position)
        self.size -= len(frame.payload)
        self.changed = True
        return frame

    def told(self) -> list[Waiting]:
        """The devices that are waited for, the longest first."""
        return list(islice(self._told(), TOLD))

    def _told(self) -> Iterator[Waiting]:
        for device, positions in self._of.items():
            first = self._frames[positions[0]]
            size = sum(len(self._frames[position].payload) for position in positions)
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
        self._frames, self._of, self.size = {}, {}, 0
        for position, ingest_ns, device, productId, address, flags, payload, *line in state:
            source, topic, port, headers = address
            where = Address(source, topic, port, tuple((name, value) for name, value in headers))
            self.hold(HeldFrame(position, ingest_ns, device, productId, where, flags, payload, *line))


def sums(frames: Collection[HeldFrame]) -> Mapping[tuple[str, str], int]:
    """How many frames, by source and product."""
    found: dict[tuple[str, str], int] = {}
    for frame in frames:
        pair = (frame.address.source, frame.productId)
        found[pair] = found.get(pair, 0) + 1
    return found
