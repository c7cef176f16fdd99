"""Rows of CSV files -> columns. Each frame is one row, or several that its source joined; the header
line travels with its address.

Row by row in Python (6 us a row of two columns, 14 us with a time format that `strptime` must
read): files are read once, and not at the rate of a live plant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from operators.batch import ABSENT, BAD, GOOD, TYPE_BREACH, UNCERTAIN, Float64, FrameBatch, Int32, Int64
from operators.decode.columns import Decoded
from operators.decode.csv_cells import RowError, cells_of, number_reader, rows_of, time_reader
from operators.decode.csv_spec import CsvSpec, Place
from operators.decode.derive import Deriving
from operators.decode.json_rows import quality_word
from operators.rejects import Reason
from operators.text import text_code

_TRUTH: Final = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}
_NO_TIME: Final = 2  # source of a time that the row does not give


class _Header:
    """Which cell of a row is what, under one header line."""

    def __init__(self, spec: CsvSpec, names: Sequence[str], line: str | None) -> None:
        self.wrong = ""
        cells: list[str] = []
        if line is not None:
            try:
                cells = [cell.strip() for cell in cells_of(line.encode("utf-8"), spec.separator)]
            except RowError as error:
                self.wrong = f"the header line: {error.detail}"
        self.width = len(cells) if line is not None else 0
        self.time, self.hub = (
            tuple(self._find(place, cells) for place in time.columns) if time is not None else ()
            for time in (spec.timestamp, spec.hub_timestamp)
        )
        self.unknown: tuple[str, ...] = ()
        self.columns: list[tuple[int, int]] = []  # (column of the result, cell)
        rows = spec.rows
        self.device, self.metric, self.value, self.quality = (
            -1 if place is None else self._find(place, cells)
            for place in ((rows.device, rows.metric, rows.value, rows.quality) if rows else (None,) * 4)
        )
        if self.metric >= 0 or (rows is not None and rows.metric is not None):
            return
        if spec.columns is not None:
            self.columns = [(names.index(name), self._find(place, cells)) for name, place in spec.columns]
        else:
            self.columns = [(at, cells.index(name)) for at, name in enumerate(names) if name in cells]
            used = {*self.time, *self.hub, self.device, *(cell for _, cell in self.columns)}
            self.unknown = tuple(cell for at, cell in enumerate(cells) if cell and at not in used)
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


class _Readings:
    """Readings as they are found; those of a frame that turns out to be a reject are taken back."""

    def __init__(self, width: int, room: int) -> None:
        self.value = np.full((width, max(room, 1)), np.nan)
        self.quality = np.full((width, max(room, 1)), ABSENT, np.uint8)
        self.frame: list[int] = []
        self.index: list[int] = []
        self.ts_ns: list[int] = []
        self.source: list[int] = []
        self.names: list[str] = []

    def __len__(self) -> int:
        return len(self.frame)

    def add(self, frame: int, index: int, ts_ns: int, source: int, name: str) -> int:
        """A reading without values; returns its number."""
        at = len(self.frame)
        if at == self.value.shape[1]:
            more = np.full(self.value.shape, np.nan)
            self.value = np.concatenate((self.value, more), axis=1)
            self.quality = np.concatenate((self.quality, np.full(more.shape, ABSENT, np.uint8)), axis=1)
        self.frame.append(frame)
        self.index.append(index)
        self.ts_ns.append(ts_ns)
        self.source.append(source)
        self.names.append(name)
        return at

    def take_back(self, begin: int) -> None:
        """All from reading `begin` on."""
        self.value[:, begin : len(self)] = np.nan
        self.quality[:, begin : len(self)] = ABSENT
        for column in (self.frame, self.index, self.ts_ns, self.source, self.names):
            del column[begin:]


class CsvDecoder:
    """One reading a row; in a tall file, rows of one frame, device and time are one reading. An empty
    cell is an absent metric, a text of `missing` a null; a text where a number is expected breaches the
    metric's type; NaN and infinities make the frame a reject.

    params: defaults; device_params: device_id -> its own, for files that name devices.
    """

    def __init__(
        self,
        spec: CsvSpec,
        metrics: tuple[tuple[str, str], ...],
        *,
        params: Mapping[str, float] | None = None,
        device_params: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.spec = spec
        self.names = [name for name, _ in metrics] + list(spec.internals)
        self.kinds = [kind for _, kind in metrics] + ["number"] * len(spec.internals)
        self.deriving = Deriving(metrics, spec.internals, spec.derive)
        self.param_names = self.deriving.param_names
        self._params, self._device_params = params or {}, device_params or {}
        self._column_of = {name: at for at, (name, _) in enumerate(metrics)}
        self._tall = spec.rows is not None and spec.rows.metric is not None
        self._named = spec.rows is not None and spec.rows.device is not None
        self._missing = frozenset(spec.missing)
        self._number = number_reader(spec.decimal, spec.thousands)
        self._times = [
            (number, time, time_reader(time, spec.decimal))
            for number, time in enumerate((spec.timestamp, spec.hub_timestamp))
            if time is not None
        ]
        self._headers: dict[str | None, _Header] = {}

    def _header(self, frames: FrameBatch, row: int, headers: dict[int, _Header]) -> _Header:
        """headers: those of this batch's addresses, as they were met."""
        address = int(frames.address[row])
        header = headers.get(address)
        if header is None:
            line = dict(frames.addresses[address].headers).get("csv")
            header = self._headers.get(line)
            if header is None:
                if len(self._headers) > 1000:
                    self._headers.clear()
                header = self._headers[line] = _Header(self.spec, self.names, line)
            headers[address] = header
        return header

    def _rows(self, frames: FrameBatch, row: int, header: _Header) -> list[list[str]]:
        """The rows of a frame, cut into cells; blank lines are none."""
        found = rows_of(frames.frame(row), self.spec.separator)
        if header.wrong:
            raise RowError(Reason.malformed, -1, header.wrong)
        many = [cells for cells in found if cells and cells != [""]] if len(found) > 1 else found
        many = many or [[""]]
        if header.width:
            for number, cells in enumerate(many):
                if len(cells) != header.width:
                    told = f"{len(cells)} columns where the header line has {header.width}"
                    raise RowError(Reason.malformed, -1, _of_several(number, many, told))
        return many

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; a row that is wrong makes its whole frame a reject."""
        count = len(rows)
        found = _Readings(len(self.names), count)
        status: Int32 = np.zeros(count, np.int32)
        place = np.full(count, -1, np.int64)
        texts: dict[int, str] = {}
        detail: dict[int, str] = {}
        unknown: dict[str, int] = {}
        unknown_frame = np.zeros(count, np.uint8)
        headers: dict[int, _Header] = {}
        arrived = frames.ingest_ns[rows].tolist()
        for at, row in enumerate(rows.tolist()):
            begin = len(found)
            try:
                header = self._header(frames, row, headers)
                many = self._rows(frames, row, header)
                strange = self._frame(header, many, at, arrived[at], found, texts)
            except RowError as error:
                found.take_back(begin)
                status[at], place[at], detail[at] = error.reason, error.place, error.detail
                continue
            if strange:
                unknown_frame[at] = 1
                for name in strange:
                    unknown[name] = unknown.get(name, 0) + 1
        size = len(found)
        frame = np.array(found.frame, np.int32)
        value, quality = self.deriving.run(
            np.ascontiguousarray(found.value[:, :size]),
            np.ascontiguousarray(found.quality[:, :size]),
            self._reading_params(params, frame, found.names),
            texts,
        )
        return Decoded(
            frame=frame,
            index=np.array(found.index, np.int32),
            ts_ns=np.array(found.ts_ns, np.int64),
            time_source=np.array(found.source, np.uint8),
            value=np.ascontiguousarray(value),
            quality=np.ascontiguousarray(quality),
            status=status,
            place=place,
            texts=texts,
            detail=detail,
            unknown=unknown,
            unknown_frame=unknown_frame,
            names=found.names if self._named else None,
        )

    def _frame(
        self,
        header: _Header,
        many: list[list[str]],
        at: int,
        arrived: int,
        found: _Readings,
        texts: dict[int, str],
    ) -> list[str]:
        """The readings of one frame's rows; returns names of metrics that are not declared."""
        strange: list[str] = []
        begin = len(found)
        open_now: dict[tuple[str, int, int], int] = {}
        filled: set[tuple[int, int]] = set()
        for number, cells in enumerate(many):
            try:
                ts_ns, source = self._time(header, cells, arrived)
                name = _cell(cells, header.device) if self._named else ""
                if not self._tall:
                    reading = found.add(at, len(found) - begin, ts_ns, source, name)
                    for column, cell in header.columns:
                        self._value(column, _cell(cells, cell), reading, found, texts)
                    strange += header.unknown
                    continue
                metric = _cell(cells, header.metric)
                if not metric:
                    raise RowError(
                        Reason.malformed, -1, f"column '{self._place('metric')}': a metric's name is expected"
                    )
                column = self._column_of.get(metric, -1)
                if column < 0:
                    strange.append(metric)
                    continue
                key = (name, ts_ns, source)
                reading = open_now.get(key, -1)
                if reading < 0 or (reading, column) in filled:
                    reading = open_now[key] = found.add(at, len(found) - begin, ts_ns, source, name)
                filled.add((reading, column))
                self._value(column, _cell(cells, header.value), reading, found, texts)
                if found.quality[column, reading] <= UNCERTAIN and header.quality >= 0:
                    worse = told_quality(_cell(cells, header.quality))
                    found.quality[column, reading] = max(int(found.quality[column, reading]), worse)
            except RowError as error:
                raise RowError(error.reason, error.place, _of_several(number, many, error.detail)) from error
        return strange

    def _time(self, header: _Header, cells: list[str], arrived: int) -> tuple[int, int]:
        """Event time of a row, and whose it is (see `Decoded.time_source`)."""
        for number, time, read in self._times:
            places = header.hub if number else header.time
            if len(places) == 1:
                text = _cell(cells, places[0])
            else:
                text = " ".join(part for place in places if (part := _cell(cells, place)))
            if not text or text in self._missing:
                continue
            try:
                ns = read(text)
            except RowError as error:
                raise RowError(error.reason, -1, f"{time.shown}: {error.detail}") from error
            if ns is None:
                wanted = f"as {time.format}" if time.format else "ISO 8601 or a number"
                raise RowError(Reason.malformed, -1, f"{time.shown}: '{text[:40]}' is no time ({wanted})")
            return ns, number
        return arrived, _NO_TIME

    def _value(self, column: int, text: str, reading: int, found: _Readings, texts: dict[int, str]) -> None:
        if not text:
            return
        if text in self._missing:
            found.quality[column, reading] = BAD
            return
        kind = self.kinds[column]
        value: float | None
        if kind == "string":
            value = float(text_code(text))
            texts[int(value)] = text
        elif kind == "boolean":
            value = _TRUTH.get(text.lower())
        else:
            try:
                value = self._number(text)
            except RowError as error:
                raise RowError(
                    error.reason, -1, f"column '{self._column(column)}': {error.detail}"
                ) from error
        if value is None:
            found.quality[column, reading] = TYPE_BREACH
        else:
            found.value[column, reading], found.quality[column, reading] = value, GOOD

    def _column(self, column: int) -> Place:
        """The name under which a person finds a column."""
        if self._tall:
            return self._place("value")
        return dict(self.spec.columns or ()).get(self.names[column], self.names[column])

    def _place(self, key: str) -> Place:
        found: Place = getattr(self.spec.rows, key)
        return found

    def _reading_params(self, params: Float64, frame: Int32, names: list[str]) -> Float64:
        if not self._named or not self.param_names:
            return np.ascontiguousarray(params[:, frame])
        columns = np.empty((len(self.param_names), len(names)))
        for row, param in enumerate(self.param_names):
            default = self._params.get(param, np.nan)
            columns[row] = [self._device_params.get(name, {}).get(param, default) for name in names]
        return columns

    def texts(
        self, frames: FrameBatch, rows: Int64, column: str
    ) -> tuple[Int32, Int64, dict[int, str], dict[int, str]]:
        """(status, place, detail, text) of one column, by its name or place, of the frames at `rows`;
        of a frame of several rows that of the first."""
        status: Int32 = np.zeros(len(rows), np.int32)
        place = np.full(len(rows), -1, np.int64)
        detail: dict[int, str] = {}
        found: dict[int, str] = {}
        headers: dict[int, _Header] = {}
        wanted: Place = int(column) if column.isdecimal() else column
        for at, row in enumerate(rows.tolist()):
            try:
                cells = self._rows(frames, row, self._header(frames, row, headers))[0]
                line = dict(frames.addresses[int(frames.address[row])].headers).get("csv")
                names = [c.strip() for c in cells_of((line or "").encode("utf-8"), self.spec.separator)]
                number = (
                    wanted - 1 if isinstance(wanted, int) else names.index(wanted) if wanted in names else -1
                )
                found[at] = _cell(cells, number)
            except RowError as error:
                status[at], place[at], detail[at] = error.reason, error.place, error.detail
        return status, place, detail, found


def told_quality(text: str) -> int:
    """GOOD, UNCERTAIN or BAD of a cell, as of `quality` in JSON rows: nothing is good; a word, a
    boolean, or the number of an OPC UA status code."""
    if not text:
        return GOOD
    word = text.lower()
    if word in ("true", "false"):
        return GOOD if word == "true" else BAD
    try:
        code = int(text, 16 if word.startswith("0x") else 10)
    except ValueError:
        return quality_word(text)
    return min(code >> 30 & 3, BAD) if abs(code) < 1 << 32 else UNCERTAIN


def _cell(cells: list[str], at: int) -> str:
    return cells[at].strip() if 0 <= at < len(cells) else ""


def _of_several(number: int, many: list[list[str]], told: str) -> str:
    return f"row {number + 1} of {len(many)}: {told}" if len(many) > 1 else told
