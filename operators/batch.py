"""The types that travel through the dataflow.

A `Slice` is what the journal source hands to the flow: one run of consecutive journal
entries. Each stage reads what the stages before it found and adds its own findings, so the
dataflow is a line and the order of everything in it is the order of the journal.

Nothing here may depend on how the journal is cut: the same frames as one slice or as many
must lead to the same output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

import msgspec
import numpy as np
import numpy.typing as npt

from operators.rejects import Reject

if TYPE_CHECKING:
    from operators.master import MasterChanges

_ENCODER: Final = msgspec.json.Encoder()

Bytes = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Float64 = npt.NDArray[np.float64]

# quality of one value, after OPC UA status severity
GOOD: Final = 0
UNCERTAIN: Final = 1
BAD: Final = 2
ABSENT: Final = 3
QUALITY_NAMES: Final = ("good", "uncertain", "bad", "absent")
TYPE_BREACH: Final = 4  # between decode and contract only: a value of another type than the metric's

# flags of a frame
FRAME_RETAINED: Final = 1  # an MQTT retained message: filtered
FRAME_HISTORICAL: Final = 2  # its source says that it is a backlog
FRAME_QUARANTINED: Final = 4  # a stage ended on it, twice: it becomes reject `engine_error`
FRAME_NUMBERED: Final = 8  # behind its bytes stands its line in a file (`with_line`)

LINE_BYTES: Final = 4
_LAST_LINE: Final = (1 << 32) - 1

# flags of a reading
HISTORICAL: Final = 1  # older than live_within against ingest time, or flagged by its source
TIME_UNCERTAIN: Final = 2  # the hub's time or ingest time stands in for the device's
IN_ORDER: Final = 4  # newer than the device's newest so far (set by the contract stage)
REBASED: Final = 8  # the device's clock was taken as stepped at this reading (implies IN_ORDER)
LIVE_REFERENCE: Final = 16  # event time is the reference: live_within and max_age do not apply
LATE: Final = 32  # every window that it belongs to refused it (set by the windows stage)

SEQ_PER_FRAME: Final = 1 << 16  # seq = position * SEQ_PER_FRAME + index of the reading in its frame


class Address(NamedTuple):
    """Where a frame came from: a source's name and its address there (MQTT topic, TCP peer,
    file name and line, OPC UA node); `port` is -1 where a source has no sub-address."""

    source: str
    topic: str
    port: int = -1
    headers: tuple[tuple[str, str], ...] = ()


class AddressBook:
    """Addresses by number; a number stands for its address as long as the book lives. They are kept as
    the bytes they came in, and made when one is asked for: of most, nobody asks twice.

    unpack: the address in packed bytes."""

    __slots__ = ("_count", "_ends", "_packed", "_unpack")

    def __init__(self, unpack: Callable[[bytes], Address]) -> None:
        self._unpack = unpack
        self._count = 0
        self._packed: Bytes = np.empty(0, np.uint8)
        self._ends: Int64 = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Address:
        """Raises IndexError for a number that no address has."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._unpack(self._packed[self._ends[number] : self._ends[number + 1]].tobytes())

    def hold(self, count: int, packed: Bytes, ends: Int64) -> None:
        """The addresses are these from now on: packed uint8, ends int64[> count], number n between
        ends[n] and ends[n + 1]. Those that were known are the same, and what is given does not change."""
        self._count, self._packed, self._ends = count, packed, ends


class BookedAddresses(Sequence[Address]):
    """The addresses of a batch as `numbers` (int64[A], each once) in a book, so that what is known
    of an address can be found by number."""

    __slots__ = ("book", "numbers")

    def __init__(self, book: AddressBook, numbers: Int64) -> None:
        self.book = book
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Address: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Address]: ...

    def __getitem__(self, at: int | slice) -> Address | Sequence[Address]:
        if isinstance(at, slice):
            return BookedAddresses(self.book, self.numbers[at])
        return self.book[int(self.numbers[at])]

    def __iter__(self) -> Iterator[Address]:
        return map(self.book.__getitem__, self.numbers.tolist())


@dataclass(slots=True, eq=False)
class Ticks:
    """Ticks of the journal's clock among the rows of a batch.

    row: int64[K], rising, 0..N: tick k stands before row `row[k]` (N: after the last).
    ns: int64[K], rising: the clock at tick k, nanoseconds since 1970.
    """

    row: Int64
    ns: Int64

    @classmethod
    def none(cls) -> Ticks:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


def with_line(payload: bytes, line: int) -> bytes:
    """A frame as it is stored when it is FRAME_NUMBERED: its line, counted from 1, as LINE_BYTES
    little-endian bytes behind it. It is no part of the frame; an address a line would be too dear."""
    return payload + min(line, _LAST_LINE).to_bytes(LINE_BYTES, "little")


def told_of_line(line: int, message: str) -> str:
    """What is said of a frame, with its line before it where it has one (not 0)."""
    return f"line {line}: {message}" if line else message


def without_lines(length: Int64, flags: Bytes) -> Int64:
    """The lengths of stored frames without the lines behind them."""
    numbered = (flags & FRAME_NUMBERED) != 0
    return np.maximum(length - LINE_BYTES * numbered, 0) if numbered.any() else length


@dataclass(slots=True, eq=False)
class FrameBatch:
    """N frames as they were journaled, in journal order.

    payload: uint8[B], all frames in one buffer, which may hold other bytes between them; offset,
    length: int64[N] into it.
    address: int32[N] into `addresses`. ingest_ns: int64[N], never falling.
    position: int64[N], strictly rising by one: the frame's ordinal in the journal.
    flags: uint8[N] of FRAME_*; the line of a FRAME_NUMBERED one stands behind it in `payload`.
    """

    payload: Bytes
    offset: Int64
    length: Int64
    address: Int32
    addresses: Sequence[Address]
    ingest_ns: Int64
    position: Int64
    flags: Bytes
    ticks: Ticks

    @classmethod
    def none(cls) -> FrameBatch:
        """No frame and no tick."""
        none = np.empty(0, np.int64)
        small, short = none.astype(np.uint8), none.astype(np.int32)
        return cls(small, none, none, short, (), none, none, small, Ticks.none())

    def __len__(self) -> int:
        return len(self.offset)

    def frame(self, row: int) -> bytes:
        """The raw bytes of one frame (for rejects and people, not for the hot path)."""
        start = int(self.offset[row])
        return self.payload[start : start + int(self.length[row])].tobytes()

    def line(self, row: int) -> int:
        """The frame's line in the file that it came from, counted from 1; 0 where it has none."""
        if not self.flags[row] & FRAME_NUMBERED:
            return 0
        end = int(self.offset[row] + self.length[row])
        return int.from_bytes(self.payload[end : end + LINE_BYTES].tobytes(), "little")

    def told(self, row: int, message: str) -> str:
        """What is said of a frame, with its line before it where it has one."""
        return told_of_line(self.line(row), message)

    def frames(self) -> Iterator[tuple[Address, bytes]]:
        """Every frame with its address, one by one (for a dataflow of one's own, not for the hot path)."""
        for row, address in enumerate(self.address.tolist()):
            yield self.addresses[address], self.frame(row)


@dataclass(slots=True, eq=False)
class ReadingBatch:
    """N readings of one product, in journal order; M = the product's metrics in file order.

    device: int32[N] slot of the device (see `operators.devices`); ts_ns: int64[N] event time.
    value: float64[M, N], NaN where absent, null or unknown; a boolean is 0.0 or 1.0; a text is
    the 52-bit hash of its UTF-8 bytes (`operators.text.text_code`), an exact float64, and
    `texts` maps the hashes of this batch to the texts.
    quality: uint8[M, N]; null in the frame is NaN with BAD.
    seq: uint64[N]; ingest_ns: int64[N]; flags: uint8[N]; source: int32[N] into `Slice.sources`.
    ticks: the slice's ticks placed among these rows.
    """

    productId: str
    device: Int32
    ts_ns: Int64
    value: Float64
    quality: Bytes
    seq: UInt64
    ingest_ns: Int64
    flags: Bytes
    source: Int32
    texts: dict[int, str]
    ticks: Ticks

    def __len__(self) -> int:
        return len(self.device)

    def take(self, keep: npt.NDArray[np.bool_]) -> ReadingBatch:
        """The rows where `keep` is true, ticks moved to where they now stand."""
        before = np.concatenate((np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)))
        return ReadingBatch(
            self.productId,
            self.device[keep],
            self.ts_ns[keep],
            np.ascontiguousarray(self.value[:, keep]),
            np.ascontiguousarray(self.quality[:, keep]),
            self.seq[keep],
            self.ingest_ns[keep],
            self.flags[keep],
            self.source[keep],
            self.texts,
            Ticks(before[self.ticks.row], self.ticks.ns),
        )


@dataclass(slots=True, eq=False)
class WindowBatch:
    """Closed (or corrected) windows of one product: R lines of windows.jsonl as columns.

    Each row is one window of one metric of one device. start_ns, end_ns: int64[R];
    metric: int32[R] into the product's metrics; count, good, bad, revision: int64[R];
    aggregates: name -> float64[R], NaN = null, only the aggregates asked for;
    position: int64[R] of the last reading counted in that revision.
    by: device_id, or over which groups; then `device` numbers `groups`, their names, and no slots.
    """

    productId: str
    window: str
    device: Int32
    metric: Int32
    start_ns: Int64
    end_ns: Int64
    count: Int64
    good: Int64
    bad: Int64
    revision: Int64
    aggregates: dict[str, Float64]
    position: Int64
    by: str = "device_id"
    groups: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.device)

    def names(self, devices: Sequence[str]) -> Sequence[str]:
        """What `device` numbers; devices: names by slot."""
        return devices if self.by == "device_id" else self.groups


class AlarmBrief(NamedTuple):
    """What most stages ask of an event. device_id: None of a group. state: bits of
    `operators.state.references.FLAGS`."""

    transition: str
    subject: str
    device_id: str | None
    productId: str | None
    state: int


class AlarmEvent(NamedTuple):
    """One transition of one alarm: a CloudEvent, ready to be written.

    told: the JSON object of alarms.jsonl (FORMATS section 5), or its line without the newline; `event` and
    `line` give either. position, device, ruleId and sequence are its sorting key. shadow: of a rule in
    `mode: shadow`; recorded, nobody is told. brief: where it is at hand.
    """

    position: int
    device: str
    ruleId: str
    sequence: str
    told: Mapping[str, Any] | bytes
    shadow: bool = False
    brief: AlarmBrief | None = None

    @property
    def event(self) -> Mapping[str, Any]:
        """The JSON object; taken from its line each time it is asked for."""
        return _object(self.told)

    @property
    def line(self) -> bytes:
        """The JSON object as a line, without its newline."""
        return _line(self.told)

    @property
    def transition(self) -> str:
        """What happened."""
        told: str = self.event["data"]["transition"] if self.brief is None else self.brief.transition
        return told

    @property
    def subject(self) -> str:
        """Whose alarm it is."""
        told: str = self.event["subject"] if self.brief is None else self.brief.subject
        return told


class AlarmInterval(NamedTuple):
    """One occurrence from raise to clear, as far as it is known: a row of `alarm_intervals`.

    told: alarm_id, ruleId, rule_version, subject, device_id (None: a group), productId, severity,
    onset_time, raised_time, cleared_time (None: it is still active), historical (0 or 1), position; or that
    as a line of JSON. A later row of the same (alarm_id, historical) takes its place.
    """

    position: int
    told: Mapping[str, Any] | bytes

    @property
    def row(self) -> Mapping[str, Any]:
        """The row, taken from its line each time it is asked for."""
        return _object(self.told)

    @property
    def line(self) -> bytes:
        """The row as a line of JSON."""
        return _line(self.told)


def _object(told: Mapping[str, Any] | bytes) -> Mapping[str, Any]:
    if isinstance(told, bytes):
        decoded: Mapping[str, Any] = msgspec.json.decode(told)
        return decoded
    return told


def _line(told: Mapping[str, Any] | bytes) -> bytes:
    return told if isinstance(told, bytes) else _ENCODER.encode(told)


class Report(NamedTuple):
    """A frame in which a device tells of itself what is no telemetry, e.g. an alarm of its own.

    role: of the frame's address. hub_id: "" where none is known. ts_ns: event time, ingest time where
    the payload has none. flags: HISTORICAL, LIVE_REFERENCE of its frame. data: the payload as JSON.
    """

    position: int
    device_id: str
    productId: str
    hub_id: str
    role: str
    ts_ns: int
    ingest_ns: int
    flags: int
    data: Any


class Control(NamedTuple):
    """A journal entry that is neither frames nor a tick; it travels in a slice of its own.

    kind: plant | connected | disconnected | started | stopped | clock_step | action | quarantine | gap.
    data: plant: {"sha256", "files": {path: bytes}}; connected and disconnected: {"source"};
    clock_step: {"step_ms"}; quarantine: {"entry", "position", "why"}, of a frame before it, which is
    marked (FRAME_QUARANTINED) from then on; gap: {"source", "what", "missing", "from", "to"}, input that was
    deleted before it was read. at_ns: the journal's clock.
    """

    kind: str
    at_ns: int
    data: Mapping[str, Any]


class StateChanges(NamedTuple):
    """Newest values that changed, as the state store keeps them (`operators.state.store`): records
    by device and product, to be gone through before the next slice, the layouts by which they are read, by
    id, and the texts that they name, by code."""

    records: Iterable[tuple[bytes, bytes, bytes]] = ()
    layouts: Mapping[bytes, bytes] = MappingProxyType({})
    texts: Mapping[int, str] = MappingProxyType({})


class Waiting(NamedTuple):
    """Frames that wait until their device is known. productId: "" where its address does not say; since_ns:
    the oldest one's arrival."""

    device_id: str
    source: str
    topic: str
    productId: str
    frames: int
    size: int
    since_ns: int


Ledger = dict[tuple[str, str], dict[str, int]]
"""(source, productId) -> term -> count; terms: LEDGER_TERMS. productId "" = not known."""

LEDGER_TERMS: Final = (
    "frames_in",
    "frames_decoded",
    "frames_rejected",
    "frames_filtered",
    "frames_held",
    "readings_decoded",
    "readings_accepted",
    "readings_late",
    "readings_rejected",
    "readings_filtered",
)


@dataclass(slots=True, eq=False)
class Slice:
    """A run of journal entries and what the stages so far found in it.

    last_entry: key of the last journal entry in it; `position`: ordinal of the next frame
    after it. A slice with a `control` has no frames.
    answers: to the operator's action that the slice is, at most one: {"id", "accepted", "message",
    "alarm_id", "subject", "state", "at_ms"}, plain JSON; of a parameter also "param".
    parts: where master data change among the frames, the decode stage cuts the slice there, and what is
    found stands in the parts, in their order, and not in the slice. They travel as one, so that an
    output store has all of an entry or nothing (`runs`).
    master: what changed just before the frames of this part. released: its frames waited for their device:
    their positions are those at which they came, so they rise, but not by one.
    waiting: the unknown devices that frames wait for from now on; None: as before.
    """

    last_entry: int
    position: int
    frames: FrameBatch
    control: Control | None = None
    sources: tuple[str, ...] = ()
    readings: list[ReadingBatch] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    windows: list[WindowBatch] = field(default_factory=list)
    alarms: list[AlarmEvent] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    intervals: list[AlarmInterval] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    ledger: Ledger = field(default_factory=dict)
    parts: list[Slice] = field(default_factory=list)
    master: MasterChanges | None = None
    released: bool = False
    waiting: Sequence[Waiting] | None = None

    @property
    def runs(self) -> Sequence[Slice]:
        """The parts, or the slice itself where it has none."""
        return self.parts or (self,)

    def count(self, source: str, productId: str, term: str, n: int = 1) -> None:
        """Add to one term of the ledger."""
        if n:
            terms = self.ledger.setdefault((source, productId), {})
            terms[term] = terms.get(term, 0) + n
