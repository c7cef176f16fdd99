"""JSON frames whose arrays hold many readings (`rows: "values[*]"`), wide or tall.

The frame is walked as a whole, so that what is malformed anywhere in it is found as in every other
JSON frame; then the array is cut into its elements, and these are walked as if each was a frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from operators.batch import (
    ABSENT,
    BAD,
    GOOD,
    TYPE_BREACH,
    UNCERTAIN,
    Bytes,
    Float64,
    FrameBatch,
    Int32,
    Int64,
)
from operators.decode import json_kernels as k
from operators.decode.columns import Decoded
from operators.decode.derive import Deriving
from operators.decode.json_carry import Carry, Flags, added_time, names_of
from operators.decode.json_decoder import JsonWalker, Walked, details, event_times
from operators.decode.json_rows_kernels import EACH, NAMED, descend
from operators.decode.json_rows_spec import Naming
from operators.decode.json_spec import FRAME, JsonSpec, Path, TimePath, path_text
from operators.rejects import Reason

_COLUMNS: Final = ("number", "boolean", "string")  # one column of a value for each JSON type
_OF_TYPE: Final = {"number": 0, "integer": 0, "boolean": 1, "string": 2}
_NO_NAME: Final = np.zeros(1, np.uint8)


class Elements(NamedTuple):
    """E elements: int64[E] frame of the R, first byte, byte after the last; and how they were found,
    a step of the path each: (which before it, place in its array)."""

    frame: Int64
    first: Int64
    last: Int64
    steps: list[tuple[Int64, Int64]]
    path: Path

    def where(self, element: int) -> str:
        """The path of one element, `values[3]`."""
        parts: list[str | int] = []
        for part, (parent, place) in zip(reversed(self.path), reversed(self.steps), strict=True):
            parts.append(int(place[element]) if isinstance(part, int) else part)
            element = int(parent[element])
        return path_text(tuple(reversed(parts)))


class JsonRowsDecoder:
    """One reading an element; in a tall payload, elements of one device and time are one reading.

    params: defaults; device_params: device_id -> its own, for payloads that name devices.
    """

    def __init__(
        self,
        spec: JsonSpec,
        metrics: tuple[tuple[str, str], ...],
        *,
        depth: int = 64,
        params: Mapping[str, float] | None = None,
        device_params: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        assert spec.rows is not None
        self.spec, self.rows, self.metrics = spec, spec.rows, metrics
        self.deriving = Deriving(metrics, spec.internals, spec.derive)
        self.param_names = self.deriving.param_names
        self._params, self._device_params = params or {}, device_params or {}
        self._parts = [
            (NAMED, np.frombuffer(part.encode("utf-8"), np.uint8).copy())
            if isinstance(part, str)
            else (part, _NO_NAME)
            for part in self.rows.path
        ]
        frame_device, row_device = split_device(self.rows.device)
        whole = replace(spec, container=None, fields=(), internals=(), derive=(), rows=None)
        self._whole = whole
        self.outer = JsonWalker(whole, (), frame_device, depth)
        self._frame_device = frame_device is not None
        columns, fields = list(metrics), list(spec.fields)
        container = spec.container
        if self.rows.metric is not None:
            columns, fields, container = [], [], None
            for at, path in enumerate(self.rows.values):
                extra, places = _typed(f"value {at}", path)
                columns, fields = columns + extra, fields + places
        self._wide = len(columns) if self.rows.metric is None else 0
        self._plus_at = self._quality_at = -1
        if self.rows.plus is not None:
            self._plus_at = len(columns)
            columns, fields = [*columns, ("\x00plus", "number")], [*fields, ("\x00plus", self.rows.plus)]
        if self.rows.quality is not None:
            self._quality_at = len(columns)
            extra, places = _typed("quality", self.rows.quality)
            columns, fields = columns + extra, fields + places
        time = self.rows.timestamp
        plus_time = None if time is None or time.plus is None else TimePath(time.plus, time.unit)
        element = JsonSpec(
            timestamp=time,
            hub_timestamp=plus_time,
            container=container,
            fields=tuple(fields),
            internals=spec.internals,
        )
        named = row_device.paths if row_device is not None else ()
        self._row_device, self._device_spans = row_device, range(2, 2 + len(named))
        metric_paths = self.rows.metric.paths if self.rows.metric is not None else ()
        self._metric_spans = range(2 + len(named), 2 + len(named) + len(metric_paths))
        texts = (*named, *metric_paths)
        self._inner = JsonWalker(element, tuple(columns), None, depth, texts)
        known = dict(fields)
        if container is not None:
            known |= {name: (*container, name) for name, _ in metrics}
        at_path = [known.get(name, ()) for name in (*(name for name, _ in columns), *spec.internals)]
        self._carry = Carry(self.rows.carry, at_path, texts, (time, plus_time))
        self._column = {name: at for at, (name, _) in enumerate(metrics)}
        self._kind = np.array([_OF_TYPE[kind] for _, kind in metrics] or [0], np.int64)

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; an element that is wrong makes its whole frame a reject."""
        outer = self.outer.walk(frames, rows)
        frame_ts, frame_source = event_times(outer, self._whole, frames.ingest_ns[rows])
        details(outer)
        elements = self.elements(frames, rows, outer)
        frame = elements.frame
        found = self._inner.walk(cut_elements(frames, rows, elements), np.arange(len(frame)))
        self._element_times(found)
        self._carry.fill(found, frame)
        own, own_ts = added_time(found, self.rows.timestamp, frames.ingest_ns[rows][frame])
        ts_ns = np.where(own, own_ts, frame_ts[frame])
        source = np.where(own, 0, frame_source[frame]).astype(np.uint8)
        names = self._names(frames, outer, found, frame)
        metric = self._metric_columns(frames, found)
        self._refuse(outer, found, elements, frames.offset[rows])
        good = outer.status[frame] == 0
        if found.unknown_frame.any():
            outer.unknown_frame[frame[(found.unknown_frame != 0) & good]] = 1
        worse = self._quality(found)
        if metric is None:
            keep = np.flatnonzero(good)
            internals = len(self.spec.internals)
            columns = [*range(self._wide), *range(len(found.value) - internals, len(found.value))]
            value, quality = found.value[columns][:, keep], found.quality[columns][:, keep]
            quality = _marked(quality, worse[keep])
        else:
            keep, value, quality = self._tall(found, metric, worse, good, frame, ts_ns, source, names)
        of_frame: Int32 = frame[keep].astype(np.int32)
        reading_names = None if names is None else [names[at] for at in keep.tolist()]
        value, quality = self.deriving.run(
            np.ascontiguousarray(value),
            np.ascontiguousarray(quality),
            self._reading_params(params, of_frame, reading_names),
            found.texts,
        )
        return Decoded(
            frame=of_frame,
            index=reading_index(of_frame),
            ts_ns=ts_ns[keep],
            time_source=source[keep],
            value=np.ascontiguousarray(value),
            quality=np.ascontiguousarray(quality),
            status=outer.status,
            place=outer.place,
            texts=found.texts,
            detail=outer.detail,
            unknown=found.unknown,
            unknown_frame=outer.unknown_frame,
            names=reading_names,
        )

    # -- elements

    def elements(self, frames: FrameBatch, rows: Int64, outer: Walked) -> Elements:
        """The elements of the good frames. A frame without the first array becomes a reject."""
        frame = np.flatnonzero(outer.status == 0)
        first = frames.offset[rows][frame]
        last = first + frames.length[rows][frame]
        payload = frames.payload if frames.payload.flags.writeable else frames.payload.copy()
        to_array = self.rows.path.index(EACH)
        steps: list[tuple[Int64, Int64]] = []
        for at, (part, name) in enumerate(self._parts):
            count, room = -1, max(16, 4 * len(first))
            opening: Bytes = np.zeros(len(first), np.uint8)
            while count < 0:
                parent, below, behind, place = (np.empty(room, np.int64) for _ in range(4))
                count = descend(payload, first, last, part, name, parent, below, behind, place, opening)
                room *= 4
            if at <= to_array:
                there = opening == ord("[")
                if at < to_array:
                    there = np.zeros(len(frame), np.bool_)
                    there[parent[:count]] = True
                for row in frame[~there].tolist():
                    where = path_text(self.rows.path[:to_array]) or "the frame"
                    outer.status[row], outer.place[row] = Reason.malformed, -1
                    outer.detail[row] = f"{where}: an array is expected"
            steps.append((parent[:count], place[:count]))
            frame, first, last = frame[parent[:count]], below[:count], behind[:count]
        return Elements(frame, first, last, steps, self.rows.path)

    def _element_times(self, found: Walked) -> None:
        """A time that is there and is none."""
        for which in range(2):
            bad = (found.time_state[which] == k.TIME_BAD) & (found.status == 0)
            for at in np.flatnonzero(bad).tolist():
                found.status[at], found.why[at] = Reason.malformed, k.W_TIME
                found.place[at] = found.time_place[which, at]

    def _names(self, frames: FrameBatch, outer: Walked, found: Walked, frame: Int64) -> list[str] | None:
        """The device of each element, "" where none is named; None where the payload names none."""
        if self.rows.device is None:
            return None
        if self._frame_device:
            whole = texts_at(frames, outer.spans[0])
            return [whole[row] for row in frame.tolist()]
        assert self._row_device is not None
        return names_of(self._row_device, [texts_at(frames, found.spans[at]) for at in self._device_spans])

    def _metric_columns(self, frames: FrameBatch, found: Walked) -> Int64 | None:
        """Of a tall payload: the column of each element's metric, -1 where it is not declared."""
        if self.rows.metric is None:
            return None
        columns = np.full(len(found.status), -1, np.int64)
        spans = found.spans[list(self._metric_spans)]
        named: Flags = np.any(spans[:, :, 0] >= 0, axis=0)
        idle: Flags = np.zeros(len(columns), np.bool_)
        if self.rows.carry:  # an element of nothing but what the others share
            idle = np.all(found.quality[: len(_COLUMNS) * len(self.rows.values)] == ABSENT, axis=0)
        names = names_of(self.rows.metric, [texts_at(frames, one) for one in spans])
        for at, name in enumerate(names):
            if idle[at]:
                continue
            columns[at] = self._column.get(name, -1)
            if found.status[at]:
                continue
            if not named[at]:
                found.status[at], found.place[at] = Reason.malformed, -1
                where = ", ".join(path_text(path) for path in self.rows.metric.paths)
                found.detail[at] = f"{where}: a metric's name is expected"
            elif columns[at] < 0:
                found.unknown[name] = found.unknown.get(name, 0) + 1
                found.unknown_frame[at] = 1
        return columns

    def _refuse(self, outer: Walked, found: Walked, elements: Elements, offset: Int64) -> None:
        """The first wrong element of a frame is what its reject tells."""
        for at in np.flatnonzero(found.status).tolist():
            row = int(elements.frame[at])
            if outer.status[row]:
                continue
            outer.status[row] = found.status[at]
            here = int(found.place[at])
            outer.place[row] = -1 if here < 0 else int(elements.first[at] - offset[row]) + here
            what = found.detail.get(at)
            if what is None:
                what = f"{k.WHY[int(found.why[at])]} at byte {outer.place[row]}"
            outer.detail[row] = f"{elements.where(at)}: {what}"

    # -- readings

    def _quality(self, found: Walked) -> Bytes:
        """What each element says of its own quality: uint8[E] GOOD, UNCERTAIN or BAD (see
        docs/decisions/decode-rows.md)."""
        count = len(found.status)
        told: Bytes = np.full(count, GOOD, np.uint8)
        if self._quality_at < 0:
            return told
        number, truth, text = (self._quality_at + at for at in range(len(_COLUMNS)))
        kind = found.quality[[number, truth, text]]
        told[(kind == TYPE_BREACH).any(axis=0)] = UNCERTAIN
        for at in np.flatnonzero(kind[0] == GOOD).tolist():
            code = found.value[number, at]
            severity = int(code) >> 30 & 3 if code == np.floor(code) and abs(code) < 2**32 else 1
            told[at] = min(severity, BAD)
        said = kind[1] == GOOD
        told[said] = np.where(found.value[truth, said] != 0, GOOD, BAD)
        for at in np.flatnonzero(kind[2] == GOOD).tolist():
            told[at] = quality_word(found.texts[int(found.value[text, at])])
        return told

    def _tall(
        self,
        found: Walked,
        metric: Int64,
        worse: Bytes,
        good: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
        frame: Int64,
        ts_ns: Int64,
        source: Bytes,
        names: list[str] | None,
    ) -> tuple[Int64, Float64, Bytes]:
        """Elements -> readings: (the first element of each reading, value, quality). A metric that
        stands twice for one device and time begins another reading, so that none is lost."""
        elements = np.flatnonzero(good & (metric >= 0))
        reading: Int32 = np.empty(len(elements), np.int32)
        heads: list[int] = []
        open_now: dict[tuple[int, str, int, int], int] = {}
        filled: set[tuple[int, int]] = set()
        for n, at in enumerate(elements.tolist()):
            key = (int(frame[at]), names[at] if names else "", int(ts_ns[at]), int(source[at]))
            mine = open_now.get(key, -1)
            column = int(metric[at])
            if mine < 0 or (mine, column) in filled:
                mine = open_now[key] = len(heads)
                heads.append(at)
            filled.add((mine, column))
            reading[n] = mine
        width = len(self.metrics) + len(self.spec.internals)
        value = np.full((width, len(heads)), np.nan)
        quality = np.full((width, len(heads)), ABSENT, np.uint8)
        columns = metric[elements]
        of_type = self._kind[columns]
        for at in range(len(self.rows.values) - 1):  # the first path where something stands
            nothing = found.quality[of_type, elements] == ABSENT
            here = of_type // len(_COLUMNS) == at
            of_type = np.where(nothing & here, of_type + len(_COLUMNS), of_type)
        numbers = found.value[of_type, elements]
        if self._plus_at >= 0:
            plus = found.value[self._plus_at, elements]
            adds = (found.quality[self._plus_at, elements] == GOOD) & (of_type % len(_COLUMNS) == 0)
            numbers = np.where(adds, numbers + plus, numbers)
        value[columns, reading] = numbers
        told = _marked(found.quality[of_type, elements][None, :], worse[elements])[0]
        quality[columns, reading] = told
        return np.array(heads, np.int64), value, quality

    def _reading_params(self, params: Float64, frame: Int32, names: list[str] | None) -> Float64:
        if names is None or not self.param_names:
            return np.ascontiguousarray(params[:, frame])
        columns = np.empty((len(self.param_names), len(names)))
        for row, param in enumerate(self.param_names):
            default = self._params.get(param, np.nan)
            columns[row] = [self._device_params.get(name, {}).get(param, default) for name in names]
        return columns


def quality_word(text: str) -> int:
    """`good`, `uncertain`, `bad`, and OPC UA's names of status codes, which begin with them; any other
    word is uncertain."""
    word = text.strip().lower()
    return GOOD if word.startswith("good") else BAD if word.startswith("bad") else UNCERTAIN


def _marked(quality: Bytes, worse: Bytes) -> Bytes:
    """Usable values of elements that say to be worse."""
    return np.where(quality <= UNCERTAIN, np.maximum(quality, worse[None, :]), quality).astype(np.uint8)


def split_device(device: Naming | None) -> tuple[Path | None, Naming | None]:
    """(path from the frame, name from the element)."""
    if device is None:
        return None, None
    first = device.paths[0]
    return (first[1:], None) if first[0] == FRAME else (None, device)


def _typed(what: str, path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, Path]]]:
    """One column a JSON type for the value at a path; no member has such a name by accident."""
    names = [(f"\x00{what} {kind}", kind) for kind in _COLUMNS]
    return names, [(name, path) for name, _ in names]


def cut_elements(frames: FrameBatch, rows: Int64, elements: Elements) -> FrameBatch:
    """Elements as frames of their own."""
    row = rows[elements.frame]
    return replace(
        frames,
        offset=np.ascontiguousarray(elements.first),
        length=np.ascontiguousarray(elements.last - elements.first),
        address=frames.address[row],
        ingest_ns=frames.ingest_ns[row],
        position=frames.position[row],
        flags=frames.flags[row],
    )


def texts_at(frames: FrameBatch, spans: Int64) -> list[str]:
    """The texts at R spans; a number as it is written, "" where there is none."""
    known: dict[bytes, str] = {}
    found = []
    for start, stop, kind in spans.tolist():
        if start < 0:
            found.append("")
            continue
        raw = frames.payload[start:stop].tobytes()
        if kind == k.SPAN_ESCAPED:
            found.append(str(json.loads(b'"' + raw + b'"')))
            continue
        text = known.get(raw)
        if text is None:
            text = known[raw] = raw.decode("utf-8")
        found.append(text)
    return found


def reading_index(frame: Int32) -> Int32:
    """0, 1, 2.. within each run of equal frames."""
    if not len(frame):
        return np.zeros(0, np.int32)
    start = np.flatnonzero(np.append(True, frame[1:] != frame[:-1]))
    lengths = np.diff(np.append(start, len(frame)))
    return (np.arange(len(frame)) - np.repeat(start, lengths)).astype(np.int32)
