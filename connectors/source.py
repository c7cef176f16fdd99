"""The protocol of a source: how frames get from a device into the journal.

A receiver process (flows/receiver.py) builds one `Receiver` from its typed configuration and
runs it until it is told to stop. The receiver hands frames to an `Appender`; what `append`
returns resolves when the frames are in the journal on disk, and only then may the receiver
acknowledge them to its peer.

Writing a source? Copy the shape of `connectors/tcp`: `config.py` (typed keys), `source.py` (the
receiver), `README.md`, `sample.yaml`; `connectors.bytewax_source` makes it a Bytewax source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from operators.batch import Bytes, Int64, UInt32


@dataclass(slots=True)
class Frame:
    """One frame on its way into the journal."""

    topic: str  # address at the source: MQTT topic, TCP peer, file name
    payload: bytes
    flags: int = 0  # operators.batch.FRAME_*
    port: int = -1
    headers: tuple[tuple[str, str], ...] = ()
    line: int = 0  # in the file that it comes from, counted from 1; 0: none


RESERVED_HEADERS: Final = ("resync", "too_large", "malformed", "csv", "peer", "shard")
"""Headers of a frame that only receivers write, beside those that begin with `penstock-`."""


def is_reserved(name: str) -> bool:
    """Whether a header of this name is never taken from a message: it would pass for a receiver's word."""
    return name.lower() in RESERVED_HEADERS or name.lower().startswith("penstock-")


Where = tuple[str, int, tuple[tuple[str, str], ...]]  # topic, port, headers of a Frame


@dataclass(slots=True, eq=False)
class FrameRows:
    """Frames as columns, for a source that has no time for an object a frame: what one journal
    entry holds, so at most 8,192 frames and 1 MiB of payload (a single frame: 16 MiB).

    payload: the frames' bytes, one after the other; lengths: uint32[N] of them; where: uint32[N]
    into `addresses`; flags: uint8[N] of operators.batch.FRAME_*.
    """

    payload: bytes
    lengths: UInt32
    where: UInt32
    flags: Bytes
    addresses: Sequence[Where]

    def __len__(self) -> int:
        return len(self.lengths)

    def frames(self) -> list[Frame]:
        """The same as objects."""
        frames, start = [], 0
        for size, where, flag in zip(
            self.lengths.tolist(), self.where.tolist(), self.flags.tolist(), strict=True
        ):
            topic, port, headers = self.addresses[where]
            frames.append(Frame(topic, self.payload[start : start + size], flag, port, headers))
            start += size
        return frames


# told (session, number, rows) just before frames leave: what names them, and which rows they are
# (None: all); once a shard that takes some of them. See `Appender.append_rows`
Leaving = Callable[[bytes, int, Int64 | None], None]


class Appender(Protocol):
    """Where a receiver puts frames. shards: how many the plant has; each frame goes to that of the
    device which its address names, so a frame of several devices is one of theirs alone."""

    shards: int

    def shard_of(self, device_id: str) -> int:
        """The shard of a device, for a receiver that makes one frame of several devices' values and
        has to cut it; 0 with one shard."""

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        """Durable when it returns: the position of the first frame (in its shard). Order of calls is
        order in each journal. Waits while the journal is full (back-pressure); raises `JournalError` only
        when the journal is gone for good.

        key: names these frames for ever, across restarts of both processes: under a key that the
        journal has (it remembers the last million) nothing is appended again, and the position
        is that of the first time."""

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        """As `append`, in one order with it, for frames that are columns already; one entry.
        Raises ValueError for rows that are none or more than an entry holds.

        leaving: called with what names this append for ever (see `appended`); with several shards once
        for each that takes a part, and only when all parts are in their journals is the append."""

    async def appended(self, session: bytes) -> int:
        """The last number of a session (of this or an earlier process, within a day) whose append
        is in the journal; all before it are. 0 for an unknown one."""

    async def control(self, kind: str, data: Mapping[str, object]) -> None:
        """A journal entry that is no frame, e.g. `connected` {"source": name}."""


@dataclass(slots=True)
class SourceStatus:
    """What a receiver tells about itself; written for health and metrics once a second."""

    state: str = "starting"  # starting | connected | silent | disconnected | stopped
    detail: str = ""
    frames: int = 0
    bytes: int = 0
    refused: int = 0  # by a cap, before they were frames (counted, told in the log)
    reconnects: int = 0
    peers: int = 0
    last_frame_ms: int = 0
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a receiver may need to know beside its own configuration. folder: the plant's, for
    relative paths; data: the data directory, for what it keeps beside the journal; files: path ->
    text of the files of the applied plant that its configuration names."""

    plant: str
    folder: Path
    data: Path
    files: Mapping[str, str] = field(default_factory=dict)


class Receiver(Protocol):
    """One source's connection to the world. Its class has `build(name, config, surroundings)`,
    which `flows.wiring` calls through; it raises `ConfigError` and touches nothing outside."""

    status: SourceStatus

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """Receive until `stop` is set, then end within 5 s: everything appended is acknowledged,
        nothing else is. Reconnects by itself with capped, jittered back-off; raises only what is
        not retryable."""
