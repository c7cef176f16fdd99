"""The archive's files: journal entries as Parquet, whole, so that a replay of them is the live run.

    ARCHIVE/journal=IDENTITY/day=2026-03-01/000000000001-000000001234.parquet
                            /plants/SHA256.parquet

One file holds the entries that its name says, of one hour of the journal's clock (UTC) at most. Its
rows are frames, and entries that are not frames, in the order of the journal:

    entry     int64    the journal entry; the frames of an entry share it
    kind      string   frame, tick, plant, connected, disconnected, started, stopped, clock_step, action
    ms        int64    the journal's clock, milliseconds since 1970
    position  int64    the frame's ordinal; of other kinds, that of the next frame
    source, topic  string; port  int32, null where there is none; headers  string, JSON [[name, value]..]
    flags     uint8    1 retained, 2 historical
    payload   binary   the frame's bytes
    control   binary   of kinds other than frame and tick: MessagePack of its data, a plant's with its files

Key-value metadata under `penstock.archive` (JSON) says what the file holds, and what stood before
its first entry: the plant in force, the sources connected, the parameters set. Pages carry
checksums. `plants/` keeps the plants by their hash, so that a file needs no file before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import IO, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.errors import ConfigError, JournalError
from connectors.journal.entries import (
    ARRAYS_AT,
    CONTROL,
    FRAMES,
    FRAMES_HEAD,
    HEADER_BYTES,
    Entry,
    decode_address,
)
from operators.batch import Address, Control

FORMAT: Final = 1
KEY: Final = b"penstock.archive"
HOUR_MS: Final = 3_600_000
FILE_BYTES: Final = 64_000_000  # of entries, in one file
GROUP_BYTES: Final = 8 << 20  # of entries, in one row group
GROUP_ROWS: Final = 131_072
FRAME: Final = "frame"
SUFFIX: Final = ".parquet"
_BINARY: Final = pa.binary()

SCHEMA: Final = pa.schema(
    [
        ("entry", pa.int64()),
        ("kind", pa.string()),
        ("ms", pa.int64()),
        ("position", pa.int64()),
        ("source", pa.string()),
        ("topic", pa.string()),
        ("port", pa.int32()),
        ("headers", pa.string()),
        ("flags", pa.uint8()),
        ("payload", pa.binary()),
        ("control", pa.binary()),
    ]
)
_DELTA: Final = ("entry", "ms", "position")
_WORDS: Final = ("kind", "source", "topic", "port", "headers")


class Standing(msgspec.Struct):
    """What stands at a place of the journal because of controls before it.

    plant: SHA-256 of the plant in force, "" where none is known; connected: sources, sorted;
    params: the newest `action` that set or took back each parameter, by device and parameter.
    """

    plant: str = ""
    connected: list[str] = []
    params: dict[str, dict[str, Any]] = {}

    def take(self, control: Control) -> None:
        """A control that comes next."""
        data = control.data
        if control.kind == "plant":
            self.plant = data["sha256"]
        elif control.kind == "connected":
            self.connected = sorted({*self.connected, data["source"]})
        elif control.kind == "disconnected":
            self.connected = [source for source in self.connected if source != data["source"]]
        elif control.kind == "action" and data.get("kind") == "param":
            of = json.dumps([data.get("device_id"), data.get("param")])
            self.params.pop(of, None)  # the newest stands last
            self.params[of] = dict(data)

    def copy(self) -> Standing:
        """Another one that stands the same."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self), type=Standing)

    def controls(self, ms: int) -> Iterator[Control]:
        """The same as controls at `ms`, a plant's without its files."""
        at_ns = ms * 1_000_000
        if self.plant:
            yield Control("plant", at_ns, {"sha256": self.plant})
        for source in self.connected:
            yield Control("connected", at_ns, {"source": source})
        for data in self.params.values():
            yield Control("action", at_ns, data)


class Contents(msgspec.Struct, forbid_unknown_fields=True):
    """What a file says about itself. entries `first`..`last`; ms of both; position: ordinal of the
    first frame in it; standing: before `first`."""

    format: int
    journal: str
    first: int
    last: int
    first_ms: int
    last_ms: int
    position: int
    frames: int
    standing: Standing


@dataclass(slots=True)
class Span:
    """A run of entries that becomes one file."""

    first: int
    first_ms: int
    position: int
    last: int = 0
    last_ms: int = 0
    frames: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """Below the journal's folder."""
        return f"day={day(self.first_ms)}/{self.first:012d}-{self.last:012d}{SUFFIX}"


def day(ms: int) -> str:
    """The day (UTC) of a moment."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d")


def hour(ms: int) -> int:
    """The hour of the journal's clock that a file belongs to."""
    return ms // HOUR_MS


def range_of(path: str) -> tuple[int, int] | None:
    """First and last entry by a file's name; None where it is no name of an archive file."""
    first, dash, last = PurePosixPath(path).name.removesuffix(SUFFIX).partition("-")
    if not (dash and path.endswith(SUFFIX) and first.isdecimal() and last.isdecimal()):
        return None
    return (int(first), int(last)) if int(first) <= int(last) else None


def branches(names: Iterable[str], journal: str) -> list[str]:
    """The folders of a journal among the files of an archive, `journal=ID` and `journal=ID.1`..., the
    newest last."""
    folders = {name.partition("/")[0] for name in names}
    return sorted(
        (one for one in folders if one.partition(".")[0] == f"journal={journal}"), key=branch_number
    )


def branch_number(folder: str) -> int:
    """0 of `journal=ID`, 1 of `journal=ID.1`."""
    return int(folder.partition(".")[2] or 0)


# -- writing


def write_file(file: IO[bytes] | str, contents: Contents, entries: Iterable[Entry], reader: Any) -> None:
    """Write a whole file: `entries` are those that `contents` names, in order; `reader` gives the
    whole of a control. The same entries give the same bytes. Raises OSError, JournalError."""
    schema = SCHEMA.with_metadata({KEY: msgspec.json.encode(contents)})
    writer = pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=list(_WORDS),
        column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    )
    with writer:
        gathered: list[Entry] = []
        size, rows, last = 0, 0, contents.first - 1
        for entry in entries:
            if entry.number != last + 1:
                raise JournalError(f"journal entry {last + 1} is missing")
            last = entry.number
            if gathered and (size + len(entry.data) > GROUP_BYTES or rows + entry.count > GROUP_ROWS):
                writer.write_table(entries_table(gathered, reader, schema))
                gathered, size, rows = [], 0, 0
            gathered.append(entry)
            size += len(entry.data)
            rows += max(1, entry.count)
        if last != contents.last:
            raise JournalError(f"journal entry {last + 1} is missing")
        writer.write_table(entries_table(gathered, reader, schema))


@dataclass(slots=True)
class _Rows:
    """Rows of a table as they are gathered, entry by entry."""

    numbers: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ms: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    where: list[Any] = field(default_factory=list)
    flags: list[Any] = field(default_factory=list)
    lengths: list[Any] = field(default_factory=list)
    payloads: list[memoryview] = field(default_factory=list)
    controls: dict[int, bytes] = field(default_factory=dict)  # by row


def entries_table(entries: Sequence[Entry], reader: Any, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Consecutive entries as rows."""
    rows = _Rows()
    kinds: dict[str, int] = {FRAME: 0, "tick": 1}
    addresses: dict[bytes, int] = {}
    count = 0
    for entry in entries:
        if entry.kind == FRAMES:
            _add_frames(entry, rows, addresses)
        else:
            kind = "tick"
            if entry.kind == CONTROL:
                control = reader.control(entry)
                kind = control.kind
                rows.controls[count] = msgspec.msgpack.encode(dict(control.data))
            rows.kinds.append(kinds.setdefault(kind, len(kinds)))
            rows.positions.append(np.array([entry.position]))
            rows.where.append(np.array([-1]))
            rows.flags.append(np.zeros(1, np.uint8))
            rows.lengths.append(np.zeros(1, np.int64))
        size = entry.count if entry.kind == FRAMES else 1
        rows.numbers.append(entry.number)
        rows.ms.append(entry.ms)
        rows.counts.append(size)
        count += size
    return _table(rows, count, list(kinds), [decode_address(packed) for packed in addresses], schema)


def _add_frames(entry: Entry, rows: _Rows, addresses: dict[bytes, int]) -> None:
    count, data = entry.count, entry.data
    size, table_bytes, address_count = FRAMES_HEAD.unpack_from(data, HEADER_BYTES)
    table_at = ARRAYS_AT + 9 * count
    if table_at + table_bytes + size != len(data):
        raise JournalError(f"journal entry {entry.number} is cut short ({len(data)} bytes)")
    ends = np.cumsum(np.frombuffer(data, "<u4", address_count, table_at), dtype=np.int64)
    ends += table_at + 4 * address_count
    start = table_at + 4 * address_count
    codes = np.empty(address_count, np.int64)
    for number, end in enumerate(ends.tolist()):
        codes[number] = addresses.setdefault(data[start:end], len(addresses))
        start = end
    rows.kinds.append(0)
    rows.positions.append(np.arange(entry.position, entry.position + count))
    rows.lengths.append(np.frombuffer(data, "<u4", count, ARRAYS_AT).astype(np.int64))
    rows.where.append(codes[np.frombuffer(data, "<u4", count, ARRAYS_AT + 4 * count)])
    rows.flags.append(np.frombuffer(data, np.uint8, count, ARRAYS_AT + 8 * count))
    rows.payloads.append(memoryview(data)[len(data) - size :])


def _table(
    rows: _Rows, count: int, kinds: list[str], addresses: list[Address], schema: pa.Schema
) -> pa.Table:
    counts = np.array(rows.counts)
    kind = np.repeat(np.array(rows.kinds, np.int32), counts)
    where = np.concatenate(rows.where)
    of = _numbers(where, pa.int64(), _bits(where >= 0))
    valid = _bits(kind == 0)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.concatenate(rows.lengths), out=offsets[1:])
    control = np.full(count, -1)
    control[list(rows.controls)] = np.arange(len(rows.controls))
    headers = [json.dumps(one.headers, ensure_ascii=False) if one.headers else None for one in addresses]
    ports = np.array([one.port for one in addresses], np.int32)
    columns = [
        _numbers(np.repeat(np.array(rows.numbers, np.int64), counts), pa.int64()),
        _texts(kinds).take(_numbers(kind, pa.int32())),
        _numbers(np.repeat(np.array(rows.ms, np.int64), counts), pa.int64()),
        _numbers(np.concatenate(rows.positions), pa.int64()),
        _texts([one.source for one in addresses]).take(of),
        _texts([one.topic for one in addresses]).take(of),
        _numbers(ports, pa.int32(), _bits(ports != -1)).take(of),
        _texts(headers).take(of),
        _numbers(np.concatenate(rows.flags), pa.uint8(), valid),
        pa.BinaryArray.from_buffers(
            pa.binary(), count, [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(rows.payloads))]
        ),
        _blobs(list(rows.controls.values())).take(_numbers(control, pa.int64(), _bits(control >= 0))),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


# arrays by their buffers: `pa.array` would import pandas into the process, 40 MB for nothing


def _numbers(values: Any, kind: pa.DataType, valid: pa.Buffer | None = None) -> pa.Array:
    made = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(made), [valid, pa.py_buffer(made)])


def _blobs(values: Sequence[bytes | None], kind: pa.DataType = _BINARY) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value or b"") for value in values], out=offsets[1:])
    valid = _bits(np.array([value is not None for value in values], bool))
    data = b"".join(value or b"" for value in values)
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(offsets), pa.py_buffer(data)])


def _texts(values: Sequence[str | None]) -> pa.Array:
    return _blobs([None if value is None else value.encode() for value in values], pa.string())


def _bits(valid: Any) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def write_plant(file: IO[bytes] | str, files: Mapping[str, bytes]) -> None:
    """A plant's files, by path."""
    columns = [_texts(list(files)), _blobs(list(files.values()))]
    table = pa.Table.from_arrays(columns, names=["path", "content"])
    pq.write_table(table, file, compression="zstd")


# -- reading


def open_file(source: Any, name: str) -> tuple[pq.ParquetFile, Contents]:
    """A file and what it says about itself. Raises ConfigError, with `name`, where it is none."""
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{name}  cannot be read as Parquet: {_first_line(error)}") from error
    packed = (file.schema_arrow.metadata or {}).get(KEY)
    if packed is None or not file.schema_arrow.equals(SCHEMA):
        raise ConfigError(
            f"{name}  is Parquet, but not of an archive; archives are written by a running plant"
        )
    try:
        contents = msgspec.json.decode(packed, type=Contents)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{name}  is an archive file that this version cannot read: {error}") from error
    if contents.format != FORMAT:
        raise ConfigError(f"{name}  is an archive of format {contents.format}; this version reads {FORMAT}")
    return file, contents


def row_groups(file: pq.ParquetFile, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file, a group at a time. Raises ConfigError, with `name`, for damaged ones."""
    for group in range(file.num_row_groups):
        try:
            yield file.read_row_group(group, columns=columns, use_threads=False).combine_chunks()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConfigError(f"{name}  is damaged: {_first_line(error)}") from error


def read_controls(source: Any, name: str) -> Iterator[Control]:
    """The controls of a file, in order. Raises ConfigError."""
    file, _ = open_file(source, name)
    for table in row_groups(file, name, ["kind", "ms", "control"]):
        rows = table.filter(table["control"].is_valid())
        for kind, ms, packed in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            yield control_of(kind, ms, packed)


def control_of(kind: str, ms: int, packed: bytes) -> Control:
    """A control from its columns."""
    return Control(kind, ms * 1_000_000, msgspec.msgpack.decode(packed))


def read_plant(source: Any, name: str) -> dict[str, bytes]:
    """A plant's files. Raises ConfigError."""
    try:
        table = pq.read_table(source, use_threads=False)
        return dict(zip(table["path"].to_pylist(), table["content"].to_pylist(), strict=True))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ConfigError(
            f"{name}  cannot be read as a plant of the archive: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
