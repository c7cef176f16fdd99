"""Frames of one product -> columns, by a binary layout (docs/decode.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import ABSENT as Q_ABSENT
from operators.batch import BAD, GOOD, Address, Bytes, Float64, FrameBatch, Int64, Ticks
from operators.decode import evaluate
from operators.decode.binary_kernels import interpret
from operators.decode.binary_spec import parse_binary_spec
from operators.decode.binary_tree import BinarySpec
from operators.decode.columns import IGNORED, Decoded, Sentences
from operators.decode.layout import Layout, build_layout
from operators.decode.straight import SLOW, StraightLayout, decode_straight, straight_of
from operators.decode.straight_kernels import to_columns
from operators.decode.straight_shapes import shapes_of
from operators.document import Problems, load_yaml
from operators.rejects import Reason

TYPE_BREACH: Final = 4  # quality of a text where a number is declared, and the other way round
_ROWS: Final = 4096
_TEXT_BYTES: Final = 1 << 18
_TABLES: Final = (
    *("code", "fields", "reals", "ranges", "franges", "mi", "mf", "pieces", "names", "made", "tests"),
    *("items", "tlvs", "times", "timef", "selects", "own", "checks", "crc_tables", "program", "constants"),
)
_MESSAGES: Final = {
    int(Reason.short): "the frame ends before the field at byte {place}",
    int(Reason.unmatched): "no case of the layout takes this frame",
    int(Reason.check): "the check at byte {place} does not fit the bytes that it covers",
    int(Reason.malformed): "what stands at byte {place} cannot be decoded by this layout",
}


@dataclass(slots=True, eq=False)
class Traced:
    """One value with the bits it came from. field: row of the layout's fields."""

    field: int
    first_bit: int
    end_bit: int
    slot: int
    row: int  # the reading, -1 for the values of a frame whose own reading is none
    kind: int
    value: float


@dataclass(slots=True, eq=False)
class Rows:
    """Readings as the interpreter leaves them: value, kind of [N, slots], slots in the layout's order."""

    value: Float64
    kind: Bytes
    frame: Int64
    index: Int64
    ts: Int64
    source: Bytes
    flag: Bytes
    status: Int64
    place: Int64
    texts: dict[int, str]
    missed: dict[str, set[int]]
    traced: list[Traced]


def run_layout(
    layout: Layout,
    payload: Bytes,
    offset: Int64,
    length: Int64,
    ports: Int64,
    ingest: Int64,
    params: Float64,
    *,
    trace: int = 0,
) -> Rows:
    """Interpret R frames. offset, length, ports (-1: none), ingest: int64[R]; params: float64[P, R].

    trace: how many values to keep with their bits.
    """
    count = len(offset)
    tables = [layout.arrays[name] for name in _TABLES]
    status = np.zeros(count, np.int64)
    place = np.full(count, -1, np.int64)
    if not len(layout.param_names):
        params = np.empty((1, max(1, count)), np.float64)
    if not payload.flags.writeable or not payload.flags.c_contiguous:
        payload = payload.copy()
    capacity, text_bytes = min(_ROWS, max(256, 2 * count)), _TEXT_BYTES
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    texts: dict[int, str] = {}
    missed: dict[str, set[int]] = {}
    traced: list[Traced] = []
    first = 0
    result = np.zeros(8, np.int64)
    while first < count:
        value = np.empty((capacity, layout.slots), np.float64)
        kind = np.empty((capacity, layout.slots), np.uint8)
        rows = [np.empty(capacity, np.int64) for _ in range(3)]
        source, flag = np.empty(capacity, np.uint8), np.empty(capacity, np.uint8)
        outer = np.empty(capacity, np.int64)
        text = np.empty(text_bytes, np.uint8)
        entries = np.empty((text_bytes >> 3, 3), np.int64)
        known = np.full(1 << 14, -1, np.int64)
        misses = np.empty((4096, 6), np.int64)
        traces, trace_value = np.empty((trace, 6), np.int64), np.empty(trace, np.float64)
        interpret(  # type: ignore[call-arg]  # mypy counts `*tables` as one
            payload, offset, length, ports, ingest, first, layout.spec.pad, *tables, params, layout.shape,
            value, kind, rows[0], rows[1], rows[2], source, flag, outer, status, place, text, entries, known,
            misses, traces, trace_value, result,
        )  # fmt: skip
        done, made = int(result[0]), int(result[1])
        for code, start, stop in entries[: result[2]].tolist():
            texts[code] = text[start:stop].tobytes().decode("utf-8")
        for row in misses[: min(int(result[4]), len(misses))].tolist():
            missed.setdefault(layout.missed_name(row[0], row[1:5]), set()).add(row[5])
        keep = rows[0][:made] >= 0
        reading = np.where(keep, np.cumsum(keep) - 1, -1)
        for n in range(int(result[5])):
            where = traces[n].tolist()
            row = int(reading[where[4]]) if 0 <= where[4] < made else -1
            traced.append(
                Traced(where[0], where[1], where[2], where[3], row, where[5], float(trace_value[n]))
            )
        if keep.all():
            cut: Any = slice(0, made)
        else:
            cut = np.flatnonzero(keep)
        parts.append(
            (value[cut], kind[cut], rows[0][cut], rows[1][cut], rows[2][cut], source[cut], flag[cut])
        )
        if done == first:
            if capacity > 70_000 and text_bytes > 1 << 27:
                status[first], place[first] = int(Reason.malformed), 0
                done += 1
            else:
                capacity, text_bytes = min(capacity * 4, 70_001), min(text_bytes * 4, (1 << 27) + 1)
        first = done
    if not parts:
        parts.append(_nothing(layout))
    columns = [of[0] if len(of) == 1 else np.concatenate(of) for of in zip(*parts, strict=True)]
    value, kind, frame, index, ts, source, flag = columns
    return Rows(value, kind, frame, index, ts, source, flag, status, place, texts, missed, traced)


def _nothing(layout: Layout) -> tuple[npt.NDArray[Any], ...]:
    shape = (0, layout.slots)
    whole = np.empty(0, np.int64)
    small = np.empty(0, np.uint8)
    return np.empty(shape), np.empty(shape, np.uint8), whole, whole, whole, small, small


class BinaryDecoder:
    """A product's binary layout as a `Decoder`.

    metrics: (name, type) of the product in file order, the columns of what `decode` gives.
    columns: straight layouts may run by the column kernels; the result is the same.
    """

    def __init__(self, spec: BinarySpec, metrics: Sequence[tuple[str, str]], *, columns: bool = True) -> None:
        self.spec = spec
        self.metrics = tuple(metrics)
        self.layout = build_layout(spec, [name for name, _ in metrics])
        self.param_names = self.layout.param_names
        kinds = np.arange(6, dtype=np.uint8)
        table = np.empty((len(self.metrics), 6), np.uint8)
        for n, (_, kind) in enumerate(self.metrics):
            table[n] = np.where(kinds == 0, Q_ABSENT, np.where(kinds == 1, BAD, GOOD))
            table[n, evaluate.TEXT] = GOOD if kind == "string" else TYPE_BREACH
            if kind == "string":
                table[n, [evaluate.INT, evaluate.FLOAT, evaluate.BOOL]] = TYPE_BREACH
        self._quality = table
        self._uses_port = self.layout.uses_port
        self.straight = straight_of(self.layout) if columns else None
        self.shapes = shapes_of(self.layout) if columns and self.straight is None else None

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """As `columns.Decoder.decode`; `port` of a frame is that of its address."""
        if len(rows) == len(frames):  # rows rise, so these are all of the frames
            of_row: Any = slice(None)
        else:
            of_row = rows
        if self._uses_port:
            ports = np.array([address.port for address in frames.addresses] or [-1], np.int64)
            port = ports[frames.address[of_row]]
        else:
            port = np.full(len(rows), -1, np.int64)
        given = (
            frames.payload,
            frames.offset[of_row],
            frames.length[of_row],
            port,
            frames.ingest_ns[of_row],
        )
        straight = self.straight if self.shapes is None else self.shapes.straight
        if straight is None:
            decoded = self._interpreted(*given, np.ascontiguousarray(params))
            if self.shapes is not None and self.shapes.learning:
                self.shapes.learn(given[0], given[1], given[2], decoded.status, decoded.place)
        else:
            decoded = self._by_columns(straight, *given, params)
        status, place = decoded.status, decoded.place
        decoded.detail = Sentences(
            status, lambda frame: reject_message(int(status[frame]), int(place[frame]))
        )
        return decoded

    def _by_columns(
        self,
        straight: StraightLayout,
        payload: Bytes,
        offset: Int64,
        length: Int64,
        ports: Int64,
        ingest: Int64,
        params: Float64,
    ) -> Decoded:
        """The column kernels; frames that they leave go to the interpreter."""
        if not payload.flags.writeable or not payload.flags.c_contiguous:
            payload = payload.copy()
        outcome, place, ts, source, value, quality = decode_straight(
            straight, self._quality, payload, offset, length, ports, ingest
        )
        frame = np.flatnonzero(outcome == 0).astype(np.int32)
        index = np.zeros(len(frame), np.int32)
        texts = dict(self.layout.texts)
        unknown: dict[str, int] = {}
        unknown_frame: Bytes | None = None
        slow = np.flatnonzero(outcome == SLOW)
        if len(slow):
            rest = self._interpreted(
                payload, offset[slow], length[slow], ports[slow], ingest[slow],
                np.ascontiguousarray(params[:, slow]),
            )  # fmt: skip
            outcome[slow], place[slow] = rest.status, rest.place
            if len(rest.frame):
                frame = np.concatenate((frame, slow[rest.frame].astype(np.int32)))
                order = np.argsort(frame, kind="stable")
                frame = frame[order]
                index = np.concatenate((index, rest.index))[order]
                ts = np.concatenate((ts, rest.ts_ns))[order]
                source = np.concatenate((source, rest.time_source))[order]
                value = np.ascontiguousarray(np.concatenate((value, rest.value), axis=1)[:, order])
                quality = np.ascontiguousarray(np.concatenate((quality, rest.quality), axis=1)[:, order])
            texts |= rest.texts
            unknown = rest.unknown
            if rest.unknown_frame is not None:
                unknown_frame = np.zeros(len(offset), np.uint8)
                unknown_frame[slow] = rest.unknown_frame
            if self.shapes is not None and self.shapes.learning:
                self.shapes.learn(payload, offset[slow], length[slow], rest.status, rest.place)
        return Decoded(
            frame=frame,
            index=index,
            ts_ns=ts,
            time_source=source,
            value=value,
            quality=quality,
            status=outcome.astype(np.int32),
            place=place,
            texts=texts,
            unknown=unknown,
            unknown_frame=unknown_frame,
        )

    def _interpreted(
        self, payload: Bytes, offset: Int64, length: Int64, ports: Int64, ingest: Int64, params: Float64
    ) -> Decoded:
        """The interpreter over all of these frames."""
        got = run_layout(self.layout, payload, offset, length, ports, ingest, params)
        count = len(self.metrics)
        value = np.empty((count, len(got.frame)), np.float64)
        quality = np.empty((count, len(got.frame)), np.uint8)
        to_columns(
            np.ascontiguousarray(got.value), np.ascontiguousarray(got.kind), np.ascontiguousarray(got.flag),
            self._quality, value, quality,
        )  # fmt: skip
        decoded = Decoded(
            frame=got.frame.astype(np.int32),
            index=got.index.astype(np.int32),
            ts_ns=got.ts,
            time_source=got.source,
            value=value,
            quality=quality,
            status=got.status.astype(np.int32),
            place=got.place,
            texts={**self.layout.texts, **got.texts},
        )
        if got.missed:
            decoded.unknown = {name: len(seen) for name, seen in got.missed.items()}
            unknown = np.zeros(len(offset), np.uint8)
            for seen in got.missed.values():
                unknown[list(seen)] = 1
            decoded.unknown_frame = unknown
        return decoded


def reject_message(status: int, place: int) -> str:
    """The sentence of a reject that a layout gives."""
    if status == Reason.unmatched and place >= 0:
        return f"no item of the tlv list has the key at byte {place} (unknown: reject)"
    text = _MESSAGES.get(status, "the frame is not as the layout says")
    if place < 0:
        return text.split(" at byte ")[0] if "{place}" in text else text
    return text.format(place=place)


def single_batch(payloads: Sequence[bytes], ports: Sequence[int], ingest_ns: Sequence[int]) -> FrameBatch:
    """Frames by hand, one address a port (tests, `penstock decode`)."""
    known = {port: n for n, port in enumerate(dict.fromkeys(ports))}
    lengths = np.array([len(payload) for payload in payloads], np.int64)
    joined = np.frombuffer(bytearray(b"".join(payloads)) or bytearray(1), np.uint8)
    return FrameBatch(
        payload=joined,
        offset=np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)[:-1])) if len(lengths) else lengths,
        length=lengths,
        address=np.array([known[port] for port in ports], np.int32),
        addresses=tuple(Address("", "", port) for port in known),
        ingest_ns=np.array(ingest_ns, np.int64),
        position=np.arange(len(lengths), dtype=np.int64),
        flags=np.zeros(len(lengths), np.uint8),
        ticks=Ticks.none(),
    )


def layout_of(text: str, metrics: Sequence[str] | None = None) -> BinarySpec:
    """The layout of a bare spec; raises ValueError with every problem."""
    problems = Problems()
    nodes = load_yaml(text, "spec", problems)
    spec = parse_binary_spec(nodes[0], metrics, None, problems) if nodes else None
    if spec is None:
        raise ValueError(problems.render())
    return spec


def warm_up_decoder() -> None:
    """Run the smallest layout over one frame."""
    decoder = BinaryDecoder(layout_of("fields: {x: {as: u8}}", ["x"]), [("x", "number")], columns=False)
    batch = single_batch([b"\x01"], [1], [0])
    decoder.decode(batch, np.arange(1), evaluate.empty_params(1))


__all__ = ["IGNORED", "BinaryDecoder", "Rows", "Traced", "layout_of", "run_layout"]
