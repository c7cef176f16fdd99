"""JSON frames of one product -> columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import numpy as np

from operators.batch import GOOD, Bytes, Float64, FrameBatch, Int32, Int64
from operators.decode import json_kernels as k
from operators.decode.columns import Decoded, Sentences
from operators.decode.derive import Deriving
from operators.decode.json_spec import UNIT_NS, JsonSpec, Path, path_table, path_text
from operators.rejects import Reason
from operators.text import text_code

LARGEST_SCRATCH: Final = 4096  # bytes of a member's name with escapes that can still be a known one
NO_STATUS: Final = 0


_powers = lru_cache(maxsize=1)(k.power_table)


class Walked:
    """What one walk over R frames found, R columns wide; see `json_kernels.walk`."""

    def __init__(self, columns: int, rows: int, spans: int = 2) -> None:
        self.value: Float64 = np.empty((columns, rows))
        self.value.fill(np.nan)
        self.quality = np.empty((columns, rows), np.uint8)
        self.quality.fill(3)
        self.times = np.zeros((2, rows), np.int64)
        self.time_state = np.zeros((2, rows), np.uint8)
        self.time_place = np.zeros((2, rows), np.int64)
        self.spans = np.empty((spans, rows, 3), np.int64)
        self.spans.fill(-1)
        self.status: Int32 = np.zeros(rows, np.int32)
        self.place: Int64 = np.empty(rows, np.int64)
        self.place.fill(-1)
        self.why = np.zeros(rows, np.uint8)
        self.unknown_frame = np.zeros(rows, np.uint8)
        self.texts: dict[int, str] = {}
        self.unknown: dict[str, int] = {}
        self.detail: MutableMapping[int, str] = {}


class JsonWalker:
    """The kernel, its table and its scratch memory for one set of paths. texts: paths of which the spans
    are told too, from the third on."""

    def __init__(
        self,
        spec: JsonSpec,
        metrics: tuple[tuple[str, str], ...],
        device: Path | None,
        depth: int,
        texts: Sequence[Path] = (),
    ) -> None:
        self.table = path_table(spec, metrics, device, texts)
        self.spans = 2 + len(texts)
        self.columns = len(metrics) + len(spec.internals)
        self.depth = depth
        self._powers, self._tens = _powers()
        self._words = k.WORDS.copy()
        self._events: Int64 = np.empty((k.EVENTS, 5), np.int64)
        self._counters = np.zeros(3, np.int64)
        self._stamps = np.zeros(len(self.table.nodes), np.int64)
        self._stack = np.zeros((depth + 2, 3), np.int64)
        self._scratch = np.zeros(LARGEST_SCRATCH, np.uint8)
        self._one = np.zeros(1, np.uint64)

    def walk(self, frames: FrameBatch, rows: Int64) -> Walked:
        """Walk the frames at `rows`; columns are the metrics, then the internals."""
        found = Walked(self.columns, len(rows), self.spans)
        if not len(rows):
            return found
        offset, length = frames.offset[rows], frames.length[rows]
        room = (int(length.max()) // 2 + 2) * self.table.most
        if room > len(self._events):
            self._events = np.empty((room, 5), np.int64)
        seen = np.full(k.SEEN, -1, np.int64)
        unknown = np.zeros((k.UNKNOWN + 1, 6), np.int64)
        counters, table = self._counters, self.table
        counters[k.N_UNKNOWN] = 0
        payload = frames.payload if frames.payload.flags.writeable else frames.payload.copy()
        pending: list[Int64] = []
        done = 0
        while done < len(rows):
            counters[k.N_EVENTS] = 0
            done = k.walk(
                payload,
                offset,
                length,
                done,
                table.nodes,
                table.keys,
                table.actions,
                table.guess,
                table.column_type,
                table.time_unit,
                self.depth,
                table.most,
                self._powers,
                self._tens,
                self._words,
                found.value,
                found.quality,
                found.times,
                found.time_state,
                found.time_place,
                found.spans,
                found.status,
                found.place,
                found.why,
                found.unknown_frame,
                self._events,
                counters,
                seen,
                unknown,
                self._stamps,
                self._stack,
                self._scratch,
                self._one,
            )
            if counters[k.N_EVENTS]:
                pending.append(self._events[: counters[k.N_EVENTS]].copy())
        for events in reversed(pending):
            self._finish(payload, offset, events, found)
        if counters[k.N_UNKNOWN]:
            for _, count, start, stop, _, escaped in unknown[unknown[:, 1] > 0].tolist():
                name = _text(payload[start:stop].tobytes(), bool(escaped)) if stop > start else ""
                found.unknown[name] = found.unknown.get(name, 0) + count
        return found

    def _finish(self, payload: Any, offset: Int64, events: Int64, found: Walked) -> None:
        """What the kernel left to Python, last first: of a member that stands twice, the last wins."""
        for kind, row, argument, start, stop in reversed(events.tolist()):
            raw = payload[start:stop].tobytes()
            if (
                kind == k.NEW_TEXT
            ):  # of a refused frame too: the kernel tells a text once, and others may have it
                text = raw.decode("utf-8", "replace")
                found.texts[text_code(text)] = text
            elif found.status[row]:
                continue
            elif kind == k.ESCAPED_TEXT:
                if found.quality[argument, row] == k.SLOW:
                    text = json.loads(raw)
                    code = text_code(text)
                    found.texts[code] = text
                    found.value[argument, row], found.quality[argument, row] = code, GOOD
            elif kind == k.SLOW_TIME:
                if found.time_state[argument, row] == k.TIME_SLOW:
                    found.times[argument, row] = _long_time(raw, int(self.table.time_unit[argument]))
                    found.time_state[argument, row] = k.TIME_GOOD
            else:
                number = float(raw)
                if number in (np.inf, -np.inf):
                    found.status[row] = Reason.bad_number
                    found.place[row] = start - int(offset[row])
                    found.why[row] = k.W_OVERFLOW
                elif kind == k.SLOW_NUMBER and found.quality[argument, row] == k.SLOW:
                    found.value[argument, row], found.quality[argument, row] = number, GOOD


def _text(raw: bytes, escaped: bool) -> str:
    text: str = json.loads(b'"' + raw + b'"') if escaped else raw.decode("utf-8")
    return text


def _long_time(raw: bytes, unit: int) -> int:
    """A time of more than 18 digits, as `json_kernels.number_time`."""
    try:
        value = Fraction(raw.decode("ascii")) if len(raw) < 400 else Fraction(float(raw))
    except (ValueError, OverflowError):
        return k.LATEST_NS
    if unit == k.UNIT_AUTO:
        size = abs(value)
        unit = (
            k.UNIT_S
            if size < 10**11
            else k.UNIT_MS
            if size < 10**14
            else k.UNIT_US
            if size < 10**17
            else k.UNIT_NS
        )
    return max(k.EARLIEST_NS, min(k.LATEST_NS, (value * UNIT_NS[unit]).__floor__()))


def event_times(found: Walked, spec: JsonSpec, ingest_ns: Int64) -> tuple[Int64, Any]:
    """Event time of each frame and its source (see `Decoded`): the device's, else the hub's, else
    ingest time. A frame whose time is there and no time becomes a `malformed` reject."""
    device = found.time_state[0] == k.TIME_GOOD
    if device.all():
        return found.times[0], np.zeros(len(device), np.uint8)
    hub = (found.time_state[1] == k.TIME_GOOD) & ~device
    ts_ns = np.where(device, found.times[0], np.where(hub, found.times[1], ingest_ns))
    source = np.where(device, 0, np.where(hub, 1, 2)).astype(np.uint8)
    wrong = (found.time_state[0] == k.TIME_BAD) | ((found.time_state[1] == k.TIME_BAD) & ~device)
    if wrong.any():
        for row in np.flatnonzero(wrong & (found.status == NO_STATUS)).tolist():
            which = 0 if found.time_state[0, row] == k.TIME_BAD else 1
            time = (spec.timestamp, spec.hub_timestamp)[which]
            found.status[row], found.why[row] = Reason.malformed, k.W_TIME
            found.place[row] = found.time_place[which, row]
            where = path_text(time.path) if time else ""
            found.detail[row] = f"{where}: {k.WHY[k.W_TIME]} at byte {found.place[row]}"
    return ts_ns, source


def details(found: Walked) -> None:
    """The sentence of each frame that was refused, those that are told already aside."""
    why, place, status = found.why, found.place, found.status

    def sentence(row: int) -> str:
        if status[row] == Reason.empty:
            return "the frame is empty"
        return f"{k.WHY[int(why[row])]} at byte {place[row]}"

    told = Sentences(status, sentence)
    told.update(found.detail)
    found.detail = told


class JsonDecoder:
    """Metrics out of JSON text (`format: json` without `binary`)."""

    def __init__(
        self,
        spec: JsonSpec,
        metrics: tuple[tuple[str, str], ...],
        *,
        depth: int = 64,
        device: Path | None = None,
    ) -> None:
        self.spec = spec
        self.metrics = metrics
        self.deriving = Deriving(metrics, spec.internals, spec.derive)
        self.param_names = self.deriving.param_names
        self.walker = JsonWalker(spec, metrics, device, depth)

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """One reading a frame; see `Decoder`."""
        found = self.walker.walk(frames, rows)
        ts_ns, time_source = event_times(found, self.spec, frames.ingest_ns[rows])
        count = len(rows)
        frame = np.arange(count, dtype=np.int32)
        value, quality = found.value, found.quality
        if found.status.any():
            details(found)
            keep = found.status == NO_STATUS
            frame, ts_ns, time_source = frame[keep], ts_ns[keep], time_source[keep]
            value = np.ascontiguousarray(value[:, keep])
            quality = np.ascontiguousarray(quality[:, keep])
            params = np.ascontiguousarray(params[:, keep])
        value, quality = self.deriving.run(value, quality, params, found.texts)
        return Decoded(
            frame=frame,
            index=np.zeros(len(frame), np.int32),
            ts_ns=ts_ns,
            time_source=time_source,
            value=value,
            quality=quality,
            status=found.status,
            place=found.place,
            texts=found.texts,
            detail=found.detail,
            unknown=found.unknown,
            unknown_frame=found.unknown_frame,
        )


class Spelled(Mapping[int, str]):
    """frame -> the text at its span (int64[R, 3] of `json_kernels.walk`), read when it is asked for."""

    __slots__ = ("_payload", "_span")

    def __init__(self, payload: Bytes, span: Int64) -> None:
        self._payload, self._span = payload, span

    def __getitem__(self, frame: int) -> str:
        start, stop, kind = self._span[frame].tolist()
        if start < 0:
            raise KeyError(frame)
        return _text(self._payload[start:stop].tobytes(), kind == k.SPAN_ESCAPED)

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._span[:, 0] >= 0).tolist())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._span[:, 0] >= 0))


def device_names(
    decoder: JsonDecoder, frames: FrameBatch, rows: Int64
) -> tuple[Int32, Int64, MutableMapping[int, str], dict[int, str]]:
    """(status, place, detail, device) of the frames at `rows`, by a decoder made with `device`. A
    number stands as it is written; null, booleans, objects and arrays are no name."""
    found = decoder.walker.walk(frames, rows)
    details(found)
    names: dict[int, str] = {}
    cache: dict[bytes, str] = {}
    for at in np.flatnonzero((found.status == NO_STATUS) & (found.spans[0, :, 0] >= 0)).tolist():
        start, stop, kind = found.spans[0, at].tolist()
        raw = frames.payload[start:stop].tobytes()
        name = cache.get(raw)
        if name is None or kind == k.SPAN_ESCAPED:
            name = cache[raw] = _text(raw, kind == k.SPAN_ESCAPED)
        names[at] = name
    return found.status, found.place, found.detail, names
