"""Recorded input (FORMATS section 4): JSON lines, a CSV or an archive, as the slices that the flow reads.

A frame's ingest time is the largest `ingest_ts` read so far, itself included. A recording without
any tick is replayed as if one stood before the first frame whose ingest time is at or past each
whole second (of several in a row the last stands for all); one that has ticks gets no others.
An archive is a journal, so nothing is added to it. How many frames a slice holds carries no meaning.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.errors import ConfigError
from connectors.files.capture import RecordingWriter
from connectors.files.config import FilesConfig
from connectors.files.rows import JSON_SUFFIXES, BrokenFileError, csv_frames, is_csv_name
from connectors.journal.archive_reader import (
    archived_days,
    archived_files,
    check_gaps,
    is_archive,
    read_files,
)
from connectors.source import Frame
from operators.batch import (
    FRAME_HISTORICAL,
    FRAME_NUMBERED,
    FRAME_QUARANTINED,
    FRAME_RETAINED,
    Address,
    Control,
    FrameBatch,
    Slice,
    Ticks,
    with_line,
    without_lines,
)
from operators.stage import SHARD_KEY

__all__ = [
    "Archives",
    "CsvInput",
    "RecordedLine",
    "RecordingSource",
    "RecordingWriter",
    "has_tick",
    "read_recording",
]

CHUNK: Final = 4 << 20
LINE_BYTES: Final = 64 << 20
SLICE_BYTES: Final = 16 << 20
MILLISECOND: Final = 1_000_000
_NO_HEADERS: Final[tuple[tuple[str, str], ...]] = ()

Headers = dict[str, str] | list[tuple[str, str]] | None


class RecordedLine(msgspec.Struct, omit_defaults=True):
    """One line: a frame (it has `ingest_ts`), the head of a capture, or another journal entry."""

    ingest_ts: int | None = None
    source: str | None = None
    topic: str = ""
    payload: str | None = None
    payload_hex: str | None = None
    port: int = -1
    headers: Headers = None
    retained: bool = False
    historical: bool = False
    quarantined: bool = False
    line: int = 0  # in the file that it came from
    tick: int | None = None
    capture: int | None = None
    position: int = 0
    connected: str | None = None
    disconnected: str | None = None
    started: Any = None
    stopped: Any = None
    clock_step: int | None = None
    action: dict[str, Any] | None = None
    quarantine: dict[str, Any] | None = None
    gap: dict[str, Any] | None = None
    plant: str | None = None
    files: dict[str, str] | None = None
    apply_id: str = ""
    by: str = ""
    why: str = ""
    at: int | None = None


@dataclass(slots=True, eq=False)
class CsvInput:
    """How a CSV file of recorded input is read: as files that the source `source` would find.

    time_of_row: the ingest time of a row in milliseconds, None where it has none; without it all
    rows are of time 0.
    """

    source: str
    config: FilesConfig
    time_of_row: Callable[[Frame], int | None] | None = None


@dataclass(slots=True, eq=False)
class Archives:
    """How archives are read. from_ms, to_ms: only entries of from_ms <= clock < to_ms; with_gaps: go
    on where entries are missing, and `say` so; else they are an error."""

    from_ms: int | None = None
    to_ms: int | None = None
    with_gaps: bool = False
    say: Callable[[str], object] = lambda told: None


def read_recording(
    paths: Sequence[Path | str],
    entry_frames: int = 10_000,
    csv: CsvInput | None = None,
    archives: Archives | None = None,
) -> Iterator[Slice]:
    """The slices of recorded files, read one after the other, in bounded memory.

    A path is a file, the folder of an archive, or an archive's `s3://` address. Each slice holds at
    most `entry_frames` frames; a control is a slice of its own. Raises ConfigError, with file and
    line, for a line that is no entry.
    """
    if entry_frames < 1:
        raise ValueError("entry_frames must be at least 1")
    files = [Path(path) for path in paths if not is_archive(str(path))]
    generate = len(files) == len(paths) and not any(has_tick(path) for path in files if not _is_csv(path))
    builder = _Builder(entry_frames, generate)
    for path in files:
        if not _is_csv(path):
            builder.quarantined |= quarantined(path)
    for name in paths:
        if is_archive(str(name)):
            yield from _archived_slices(str(name), builder, archives or Archives())
            continue
        path = Path(name)
        if not _is_csv(path):
            yield from _json_slices(path, builder)
        elif csv is None:
            raise ConfigError(f"{path}  a CSV file is read by a source of kind files; the plant has none")
        else:
            yield from _csv_slices(path, builder, csv)
    yield from builder.flush()


def _archived_slices(path: str, builder: _Builder, how: Archives) -> Iterator[Slice]:
    yield from builder.flush()
    files = archived_files(path, archived_days(how.from_ms, how.to_ms))
    check_gaps(files, how.say if how.with_gaps else None)
    for read in read_files(
        files, from_ms=how.from_ms, to_ms=how.to_ms, rows=builder.entry_frames, say=how.say
    ):
        yield builder.passed(read.position, read.found)


def has_tick(path: Path) -> bool:
    """Whether a recording holds a tick. Reads up to the first one."""
    decoder = msgspec.json.Decoder(RecordedLine)
    for _, chunk in _chunks(path):
        at = chunk.find(b'"tick"')
        while at >= 0:
            start, end = chunk.rfind(b"\n", 0, at) + 1, chunk.find(b"\n", at)
            end = len(chunk) if end < 0 else end
            try:
                if decoder.decode(chunk[start:end]).tick is not None:
                    return True
            except msgspec.MsgspecError:
                pass  # told with its line when it is read
            at = chunk.find(b'"tick"', end)
    return False


def quarantined(path: Path) -> set[int]:
    """Positions of the frames that a capture names as set aside: such a line stands behind its frame,
    which may have been captured before it was marked."""
    decoder = msgspec.json.Decoder(RecordedLine)
    found: set[int] = set()
    for _, chunk in _chunks(path):
        at = chunk.find(b'"quarantine":')
        while at >= 0:
            start, end = chunk.rfind(b"\n", 0, at) + 1, chunk.find(b"\n", at)
            end = len(chunk) if end < 0 else end
            try:
                named = decoder.decode(chunk[start:end]).quarantine
            except msgspec.MsgspecError:
                named = None  # told with its line when it is read
            position = None if named is None else named.get("position")
            if isinstance(position, int):  # any other is told with its line as well
                found.add(position)
            at = chunk.find(b'"quarantine":', end)
    return found


def _is_csv(path: Path) -> bool:
    """By the name; where that says nothing, recorded lines begin with a brace."""
    if is_csv_name(path.name):
        return True
    if path.name.lower().endswith(JSON_SUFFIXES):
        return False
    return not next((chunk for _, chunk in _chunks(path)), b"").lstrip().startswith(b"{")


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file, many at a time, and the number of the first."""
    number, rest = 1, b""
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                end = data.rfind(b"\n") + 1
                if not end:
                    rest += data
                    if len(rest) > LINE_BYTES:
                        raise ConfigError(f"{path}:{number}  a line of more than {LINE_BYTES >> 20} MiB")
                    continue
                chunk, rest = rest + data[:end], data[end:]
                yield number, chunk
                number += chunk.count(b"\n")
    except OSError as error:
        raise ConfigError(f"{path}  cannot be read: {error.strerror}") from error
    if rest:
        yield number, rest


def _json_slices(path: Path, builder: _Builder) -> Iterator[Slice]:
    decoder = msgspec.json.Decoder(RecordedLine)
    for number, chunk in _chunks(path):
        try:
            lines = decoder.decode_lines(chunk)
        except msgspec.MsgspecError:
            _tell_bad_line(path, number, chunk, decoder)
            raise
        for index, line in enumerate(lines):
            if line.ingest_ts is not None:
                try:
                    builder.add_line(line)
                except ValueError as error:
                    raise ConfigError(f"{path}:{_line_number(number, chunk, index)}  {error}") from error
                if builder.is_full:
                    yield from builder.flush()
            elif line.tick is not None:
                builder.tick(line.tick)
            else:
                try:
                    yield from _other(line, builder)
                except ValueError as error:
                    raise ConfigError(f"{path}:{_line_number(number, chunk, index)}  {error}") from error


def _tell_bad_line(path: Path, number: int, chunk: bytes, decoder: Any) -> None:
    for offset, line in enumerate(chunk.split(b"\n")):
        if not line.strip():
            continue
        try:
            decoder.decode(line)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}:{number + offset}  {_plain(str(error))}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}:{number + offset}  not a JSON object: {error}") from error


def _plain(message: str) -> str:
    """msgspec's `... - at `$.topic`` as a place and a sentence."""
    what, at, where = message.partition(" - at `$.")
    return f"{where.rstrip('`')}: {what[:1].lower()}{what[1:]}" if at else message


def _line_number(first: int, chunk: bytes, index: int) -> int:
    """The number of a chunk's line `index`, blank lines not counted in index."""
    at = -1
    for offset, line in enumerate(chunk.split(b"\n")):
        at += bool(line.strip())
        if at == index:
            return first + offset
    return first


def _other(line: RecordedLine, builder: _Builder) -> Iterator[Slice]:
    """A line that is neither a frame nor a tick."""
    if line.capture is not None:
        if line.capture != 1:
            raise ValueError(f"capture: version {line.capture} is not known; this version reads 1")
        yield from builder.begin(line.position)
        return
    yield from builder.control(*_control(line), line.at)
    if line.gap is not None:  # what is missing had positions of its own, where the journal itself lost it
        yield from builder.begin(int(line.gap.get("position", 0)))


def _control(line: RecordedLine) -> tuple[str, dict[str, Any]]:
    if line.connected is not None:
        return "connected", {"source": line.connected}
    if line.disconnected is not None:
        return "disconnected", {"source": line.disconnected}
    if line.clock_step is not None:
        return "clock_step", {"step_ms": line.clock_step}
    if line.quarantine is not None:
        return "quarantine", line.quarantine
    if line.gap is not None:
        return "gap", line.gap
    if line.action is not None:
        return "action", line.action
    if line.plant is not None:
        try:
            files = {path: base64.b64decode(text, validate=True) for path, text in (line.files or {}).items()}
        except binascii.Error as error:
            raise ValueError(f"files: not base64: {error}") from error
        about = {"apply_id": line.apply_id, "by": line.by, "why": line.why}
        told = {key: text for key, text in about.items() if text}
        return "plant", {"sha256": line.plant, "files": files, **told}
    for kind, value in (("started", line.started), ("stopped", line.stopped)):
        if value is not None:
            return kind, value if isinstance(value, dict) else {}
    if line.source is not None or line.payload is not None or line.payload_hex is not None:
        raise ValueError("a frame needs ingest_ts, milliseconds since 1970")
    raise ValueError("no entry of a recording: neither a frame (ingest_ts) nor tick, connected, ...")


def _csv_slices(path: Path, builder: _Builder, csv: CsvInput) -> Iterator[Slice]:
    try:
        for frame in csv_frames(path, csv.config):
            time = csv.time_of_row(frame) if csv.time_of_row is not None else None
            address = (csv.source, frame.topic, frame.port, frame.headers)
            builder.add(frame.payload, address, frame.flags, 0 if time is None else time, frame.line)
            if builder.is_full:
                yield from builder.flush()
    except BrokenFileError as error:
        raise ConfigError(f"{path}  {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}  cannot be read: {error.strerror}") from error


class _Builder:
    """Gathers frames and ticks into slices; the clock and the positions run through all of them."""

    def __init__(self, entry_frames: int, generate: bool) -> None:
        self.entry_frames = entry_frames
        self.quarantined: set[int] = set()  # positions of frames that a later line sets aside
        self._generate = generate
        self._entry = 0
        self._position = 0
        self._clock_ms = 0
        self._tick_ms = 0  # newest tick
        self._next_second = -(1 << 62)
        self._clear()

    def _clear(self) -> None:
        self._payloads: list[bytes] = []
        self._where: list[int] = []
        self._flags: list[int] = []
        self._clocks: list[int] = []
        self._ticks: list[tuple[int, int]] = []
        self._index: dict[tuple[str, str, int, tuple[tuple[str, str], ...]], int] = {}
        self._bytes = 0
        self.is_full = False

    def add_line(self, line: RecordedLine) -> None:
        """A recorded frame; raises ValueError where it is none."""
        if line.source is None:
            raise ValueError("a frame needs source, the name of the source that it came through")
        if line.payload is not None:
            if line.payload_hex is not None:
                raise ValueError("a frame has payload or payload_hex, not both")
            payload = line.payload.encode()
        elif line.payload_hex is not None:
            try:
                payload = bytes.fromhex(line.payload_hex)
            except ValueError as error:
                raise ValueError(f"payload_hex: not hexadecimal: {error}") from error
        else:
            raise ValueError("a frame needs payload (text) or payload_hex")
        headers = _NO_HEADERS
        if line.headers:
            pairs = line.headers.items() if isinstance(line.headers, dict) else line.headers
            headers = tuple((name, value) for name, value in pairs)
        flags = FRAME_RETAINED * line.retained | FRAME_HISTORICAL * line.historical
        named = bool(self.quarantined) and self._position + len(self._payloads) in self.quarantined
        flags |= FRAME_QUARANTINED * (line.quarantined or named)
        assert line.ingest_ts is not None
        self.add(payload, (line.source, line.topic, line.port, headers), flags, line.ingest_ts, line.line)

    def add(
        self,
        payload: bytes,
        address: tuple[str, str, int, tuple[tuple[str, str], ...]],
        flags: int,
        ms: int,
        line: int = 0,
    ) -> None:
        """A frame, read at `ms`, of a line of a file or of none (0)."""
        if line > 0:
            payload, flags = with_line(payload, line), flags | FRAME_NUMBERED
        clock = self._clock_ms = max(self._clock_ms, ms)
        if clock >= self._next_second and self._generate:
            second = clock // 1000 * 1000
            self.tick(second)
            self._next_second = second + 1000
        index = self._index
        self._where.append(index.setdefault(address, len(index)))
        self._payloads.append(payload)
        self._flags.append(flags)
        self._clocks.append(clock)
        self._bytes += len(payload)
        self.is_full = len(self._payloads) >= self.entry_frames or self._bytes >= SLICE_BYTES

    def tick(self, ms: int) -> None:
        """The clock passed `ms`; stands for the ticks before it with no frame between."""
        self._tick_ms = max(self._tick_ms, ms)
        row = len(self._payloads)
        if self._ticks and self._ticks[-1][0] == row:
            self._ticks.pop()
        self._ticks.append((row, self._tick_ms))

    def begin(self, position: int) -> Iterator[Slice]:
        """The head of a capture: its first frame's ordinal (positions never go back)."""
        yield from self.flush()
        self._position = max(self._position, position)

    def passed(self, position: int, found: FrameBatch | Control) -> Slice:
        """What a journal's archive holds, as it is. position: of the next frame after it."""
        self._entry += 1
        self._position = position
        if isinstance(found, Control):
            return Slice(self._entry, position, self._batch(), found)
        newest = [*found.ingest_ns[-1:].tolist(), *found.ticks.ns[-1:].tolist()]
        self._clock_ms = max(self._clock_ms, *(ns // MILLISECOND for ns in newest))
        return Slice(self._entry, position, found)

    def control(self, kind: str, data: dict[str, Any], at_ms: int | None) -> Iterator[Slice]:
        """A control, in a slice of its own."""
        yield from self.flush()
        self._entry += 1
        at = max(self._clock_ms, self._tick_ms) if at_ms is None else at_ms
        yield Slice(self._entry, self._position, self._batch(), Control(kind, at * MILLISECOND, data))

    def flush(self) -> Iterator[Slice]:
        """What has been gathered, if anything."""
        if self._payloads or self._ticks:
            batch = self._batch()
            self._entry += 1
            self._position += len(batch)
            self._clear()
            yield Slice(self._entry, self._position, batch)

    def _batch(self) -> FrameBatch:
        count = len(self._payloads)
        stored = np.fromiter(map(len, self._payloads), np.int64, count)
        flags = np.array(self._flags, np.uint8)
        ticks = np.array(self._ticks, np.int64).reshape(-1, 2)
        return FrameBatch(
            payload=np.frombuffer(b"".join(self._payloads), np.uint8),
            offset=np.cumsum(stored) - stored,
            length=without_lines(stored, flags),
            address=np.array(self._where, np.int32),
            addresses=tuple(Address(*address) for address in self._index),
            ingest_ns=np.array(self._clocks, np.int64) * MILLISECOND,
            position=np.arange(self._position, self._position + count, dtype=np.int64),
            flags=flags,
            ticks=Ticks(np.ascontiguousarray(ticks[:, 0]), ticks[:, 1] * MILLISECOND),
        )


class _Partition(StatefulSourcePartition[tuple[str, Slice], int]):
    def __init__(self, slices: Iterable[Slice], done: int) -> None:
        self._slices = (made for made in slices if made.last_entry > done)
        self._done = done

    def next_batch(self) -> list[tuple[str, Slice]]:
        made = next(self._slices)
        self._done = made.last_entry
        return [(SHARD_KEY, made)]

    def snapshot(self) -> int:
        return self._done


class RecordingSource(FixedPartitionedSource[tuple[str, Slice], int]):
    """Recorded files as a Bytewax source: items are `("shard", Slice)`; ends with the last file."""

    def __init__(
        self, paths: Sequence[Path | str], entry_frames: int = 10_000, csv: CsvInput | None = None
    ) -> None:
        self.paths = paths
        self.entry_frames = entry_frames
        self.csv = csv

    def list_parts(self) -> list[str]:
        return ["recording"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        return _Partition(read_recording(self.paths, self.entry_frames, self.csv), resume_state or 0)
