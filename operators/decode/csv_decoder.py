"""Rows of CSV files -> columns. Each frame is one row; the header line travels with its address.

Row by row in Python (6 us a row of two columns, 14 us with a time format that `strptime` must
read): files are read once, and not at the rate of a live plant.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from operators.batch import ABSENT, BAD, GOOD, TYPE_BREACH, Float64, FrameBatch, Int32, Int64
from operators.decode import json_kernels as k
from operators.decode.columns import Decoded
from operators.decode.csv_spec import TIME_UNITS, CsvSpec, Place, TimeColumn
from operators.decode.derive import Deriving
from operators.rejects import Reason
from operators.text import text_code

_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_NO_NUMBER: Final = re.compile(r"[-+]?(?:nan|inf|infinity)\Z", re.IGNORECASE)
_TRUTH: Final = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_PLAIN_FORMATS: Final = {"%Y-%m-%d %H:%M:%S": " ", "%Y-%m-%dT%H:%M:%S": "T"}
_PLAIN_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}\Z", re.ASCII)


class RowError(Exception):
    """Why a row is a reject."""

    def __init__(self, reason: Reason, place: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.place = place
        self.detail = detail


def cells_of(raw: bytes, separator: str) -> list[str]:
    """The cells of one row after RFC 4180; raises RowError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(Reason.encoding, error.start, f"not valid UTF-8 at byte {error.start}") from error
    if '"' not in text:
        return text.split(separator)
    try:
        rows = list(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error as error:
        raise RowError(Reason.malformed, -1, f"not CSV: {error}") from error
    if len(rows) != 1:
        raise RowError(Reason.malformed, -1, "not CSV: more than one row")
    return rows[0]


def number_of(text: str, decimal: str) -> float | None:
    """A cell as the nearest double; None if it is no number; raises RowError where it is not finite."""
    plain = text if decimal == "." else text.replace(".", "\0").replace(decimal, ".")
    if _NUMBER.match(plain) is None:
        if _NO_NUMBER.match(plain):
            raise RowError(Reason.bad_number, -1, f"'{text}' is no usable number")
        return None
    value = float(plain)
    if value in (np.inf, -np.inf):
        raise RowError(Reason.bad_number, -1, f"'{text[:40]}' is beyond the range of a double")
    return value


def time_reader(spec: TimeColumn) -> Callable[[str], int | None]:
    """Text -> nanoseconds since 1970, cut down; None where it is no such time."""
    zone = ZoneInfo(spec.zone)
    unit = TIME_UNITS[spec.unit]

    def bounded(ns: int) -> int:
        return max(k.EARLIEST_NS, min(k.LATEST_NS, ns))

    def nanoseconds(moment: datetime.datetime) -> int:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        past = moment - _EPOCH
        return bounded((past.days * 86_400 + past.seconds) * 10**9 + past.microseconds * 1000)

    def iso(text: str) -> int | None:
        if _NUMBER.match(text):
            try:
                value = Decimal(text)
            except InvalidOperation:
                return None
            if value.adjusted() > 40:
                return k.LATEST_NS if value > 0 else k.EARLIEST_NS
            size = abs(value)
            scale = unit or (
                10**9 if size < 10**11 else 10**6 if size < 10**14 else 10**3 if size < 10**17 else 1
            )
            return bounded(int((value * scale).to_integral_value("ROUND_FLOOR")))
        data = np.frombuffer(text.encode("utf-8"), np.uint8).copy()
        good, ns = k.read_iso_time(data)
        if not good:
            return None
        if spec.zone != "UTC" and not re.search(r"(?:[zZ]|[-+][0-9]{2}(?::?[0-9]{2})?)\Z", text[11:]):
            local = _EPOCH.replace(tzinfo=None) + datetime.timedelta(seconds=ns // 10**9)
            return bounded(nanoseconds(local) + ns % 10**9)
        return int(ns)

    form = spec.format
    if form is None:
        return iso

    def formatted(text: str) -> int | None:
        try:
            if form in _PLAIN_FORMATS and _PLAIN_TIME.match(text) and text[10] == _PLAIN_FORMATS[form]:
                return nanoseconds(datetime.datetime.fromisoformat(text))
            return nanoseconds(datetime.datetime.strptime(text, form))
        except (ValueError, OverflowError):
            return None

    return formatted


class _Header:
    """Which cell of a row is what, under one header line."""

    __slots__ = ("columns", "hub", "time", "unknown", "width", "wrong")

    def __init__(self, spec: CsvSpec, names: Sequence[str], line: str | None) -> None:
        self.wrong = ""
        cells: list[str] = []
        if line is not None:
            try:
                cells = [cell.strip() for cell in cells_of(line.encode("utf-8"), spec.separator)]
            except RowError as error:
                self.wrong = f"the header line: {error.detail}"
        self.width = len(cells) if line is not None else 0
        self.time = self._find(spec.timestamp.column, cells) if spec.timestamp else -1
        self.hub = self._find(spec.hub_timestamp.column, cells) if spec.hub_timestamp else -1
        self.unknown: tuple[str, ...] = ()
        self.columns: list[tuple[int, int]] = []  # (column of the result, cell)
        if spec.columns is not None:
            self.columns = [(names.index(name), self._find(place, cells)) for name, place in spec.columns]
        else:
            self.columns = [(at, cells.index(name)) for at, name in enumerate(names) if name in cells]
            used = {self.time, self.hub, *(cell for _, cell in self.columns)}
            self.unknown = tuple(cell for at, cell in enumerate(cells) if at not in used)
            if line is None:
                self.wrong = "the file has no header line, and the product names no columns"

    def _find(self, place: Place, cells: list[str]) -> int:
        if isinstance(place, int):
            return place - 1
        if place in cells:
            return cells.index(place)
        self.wrong = self.wrong or (
            f"the header line has no column '{place}'" if cells else f"no header line names column '{place}'"
        )
        return -1


class CsvDecoder:
    """One reading a row. An empty cell is an absent metric, a text of `missing` a null; a text where
    a number is expected breaches the metric's type; NaN and infinities make the row a reject."""

    def __init__(self, spec: CsvSpec, metrics: tuple[tuple[str, str], ...]) -> None:
        self.spec = spec
        self.names = [name for name, _ in metrics] + list(spec.internals)
        self.kinds = [kind for _, kind in metrics] + ["number"] * len(spec.internals)
        self.deriving = Deriving(metrics, spec.internals, spec.derive)
        self.param_names = self.deriving.param_names
        self._missing = frozenset(spec.missing)
        self._time = time_reader(spec.timestamp) if spec.timestamp else None
        self._hub = time_reader(spec.hub_timestamp) if spec.hub_timestamp else None
        self._headers: dict[str | None, _Header] = {}

    def _header(self, frames: FrameBatch, row: int) -> _Header:
        line = dict(frames.addresses[int(frames.address[row])].headers).get("csv")
        header = self._headers.get(line)
        if header is None:
            if len(self._headers) > 1000:
                self._headers.clear()
            header = self._headers[line] = _Header(self.spec, self.names, line)
        return header

    def _cells(self, frames: FrameBatch, row: int, headers: dict[int, _Header]) -> tuple[_Header, list[str]]:
        """headers: those of this batch's addresses, as they were met."""
        address = int(frames.address[row])
        header = headers.get(address)
        if header is None:
            header = headers[address] = self._header(frames, row)
        cells = cells_of(frames.frame(row), self.spec.separator)
        if header.wrong:
            raise RowError(Reason.malformed, -1, header.wrong)
        if header.width and len(cells) != header.width:
            raise RowError(
                Reason.malformed, -1, f"{len(cells)} columns where the header line has {header.width}"
            )
        return header, cells

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`."""
        count = len(rows)
        value = np.full((len(self.names), count), np.nan)
        quality = np.full((len(self.names), count), ABSENT, np.uint8)
        ts_ns = frames.ingest_ns[rows].copy()
        time_source = np.full(count, 2, np.uint8)
        status: Int32 = np.zeros(count, np.int32)
        place = np.full(count, -1, np.int64)
        texts: dict[int, str] = {}
        detail: dict[int, str] = {}
        unknown: dict[str, int] = {}
        unknown_frame = np.zeros(count, np.uint8)
        headers: dict[int, _Header] = {}
        for at, row in enumerate(rows.tolist()):
            try:
                header, cells = self._cells(frames, row, headers)
                self._values(header, cells, at, value, quality, texts)
                for number, (cell, read) in enumerate(((header.time, self._time), (header.hub, self._hub))):
                    if read is None or time_source[at] != 2:
                        continue
                    text = cells[cell].strip() if cell < len(cells) else ""
                    if text and text not in self._missing:
                        ns = read(text)
                        if ns is None:
                            raise RowError(Reason.malformed, -1, self._no_time(number, text))
                        ts_ns[at], time_source[at] = ns, number
                if header.unknown:
                    unknown_frame[at] = 1
                for name in header.unknown:
                    unknown[name] = unknown.get(name, 0) + 1
            except RowError as error:
                status[at], place[at], detail[at] = error.reason, error.place, error.detail
        frame = np.arange(count, dtype=np.int32)
        if status.any():
            keep = status == 0
            frame, ts_ns, time_source = frame[keep], ts_ns[keep], time_source[keep]
            value, quality, params = value[:, keep], quality[:, keep], params[:, keep]
        value, quality = self.deriving.run(value, quality, np.ascontiguousarray(params), texts)
        return Decoded(
            frame=frame,
            index=np.zeros(len(frame), np.int32),
            ts_ns=ts_ns,
            time_source=time_source,
            value=np.ascontiguousarray(value),
            quality=np.ascontiguousarray(quality),
            status=status,
            place=place,
            texts=texts,
            detail=detail,
            unknown=unknown,
            unknown_frame=unknown_frame,
        )

    def _no_time(self, number: int, text: str) -> str:
        time = (self.spec.timestamp, self.spec.hub_timestamp)[number]
        assert time is not None
        wanted = f"as {time.format}" if time.format else "ISO 8601 or a number"
        return f"column '{time.column}': '{text[:40]}' is no time ({wanted})"

    def _values(
        self,
        header: _Header,
        cells: list[str],
        at: int,
        value: Float64,
        quality: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
        texts: dict[int, str],
    ) -> None:
        for column, cell in header.columns:
            text = cells[cell].strip() if cell < len(cells) else ""
            if not text:
                continue
            if text in self._missing:
                quality[column, at] = BAD
                continue
            kind = self.kinds[column]
            found: float | None
            if kind == "string":
                found = float(text_code(text))
                texts[int(found)] = text
            elif kind == "boolean":
                found = _TRUTH.get(text.lower())
            else:
                try:
                    found = number_of(text, self.spec.decimal)
                except RowError as error:
                    raise RowError(
                        error.reason, -1, f"column '{self._column(column)}': {error.detail}"
                    ) from error
            if found is None:
                quality[column, at] = TYPE_BREACH
            else:
                value[column, at], quality[column, at] = found, GOOD

    def _column(self, column: int) -> Place:
        """The name under which a person finds a column."""
        return dict(self.spec.columns or ()).get(self.names[column], self.names[column])

    def texts(
        self, frames: FrameBatch, rows: Int64, column: str
    ) -> tuple[Int32, Int64, dict[int, str], dict[int, str]]:
        """(status, place, detail, text) of one column, by its name or place, of the frames at `rows`."""
        status: Int32 = np.zeros(len(rows), np.int32)
        place = np.full(len(rows), -1, np.int64)
        detail: dict[int, str] = {}
        found: dict[int, str] = {}
        headers: dict[int, _Header] = {}
        wanted: Place = int(column) if column.isdecimal() else column
        for at, row in enumerate(rows.tolist()):
            try:
                _, cells = self._cells(frames, row, headers)
                line = dict(frames.addresses[int(frames.address[row])].headers).get("csv")
                names = [c.strip() for c in cells_of((line or "").encode("utf-8"), self.spec.separator)]
                number = (
                    wanted - 1 if isinstance(wanted, int) else names.index(wanted) if wanted in names else -1
                )
                found[at] = cells[number].strip() if 0 <= number < len(cells) else ""
            except RowError as error:
                status[at], place[at], detail[at] = error.reason, error.place, error.detail
        return status, place, detail, found
