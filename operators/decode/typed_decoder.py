"""Typed frames -> readings, each frame's values of one time joined into one."""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import ABSENT, Bytes, Float64, FrameBatch, Int32, Int64
from operators.decode import typed_kernels as k
from operators.decode.columns import Decoded, Sentences
from operators.decode.derive import Deriving
from operators.decode.typed_spec import TypedSpec
from operators.rejects import Reason
from operators.text import text_code

_KINDS: Final = {"number": k.T_NUMBER, "integer": k.T_NUMBER, "boolean": k.T_BOOLEAN, "string": k.T_STRING}
_WHY: Final = {
    k.W_HEAD: "no typed frame, which begins with PTV1 and four counts",
    k.W_LENGTH: "the frame's length is not that of the values it announces",
    k.W_STRINGS: "its names and texts do not lie one behind the other",
    k.W_UTF8: "not valid UTF-8",
    k.W_NAME: "a value of a metric that has no name",
    k.W_KIND: "a value of an unknown kind",
    k.W_TEXT: "a value that is none of the frame's texts",
    k.W_QUALITY: "a value of unknown quality",
}


class TypedDecoder:
    """One product's typed frames. Of an integer metric the contract judges a fraction, as it does in JSON."""

    def __init__(self, spec: TypedSpec, metrics: tuple[tuple[str, str], ...]) -> None:
        columns = {name: at for at, (name, _) in enumerate(metrics)}
        for name in spec.internals:
            columns[name] = len(columns)
        named = [(name, name) for name, _ in metrics] if spec.metrics is None else spec.metrics
        order = sorted((text_code(there), columns[name]) for name, there in named)
        self._codes = np.array([code for code, _ in order], np.int64)
        self._columns = np.array([column for _, column in order], np.int64)
        kinds = [_KINDS[kind] for _, kind in metrics] + [k.T_NUMBER] * len(spec.internals)
        self._kinds: Bytes = np.array(kinds, np.uint8)
        self.deriving = Deriving(metrics, spec.internals, spec.derive)
        self.param_names = self.deriving.param_names

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; a frame that is not whole in every byte is a reject."""
        payload = frames.payload if frames.payload.flags.writeable else frames.payload.copy()
        offset, length = frames.offset[rows], frames.length[rows]
        why: Int32 = np.empty(len(rows), np.int32)
        place, count = np.empty((2, len(rows)), np.int64)
        strings = k.check_frames(payload, offset, length, why, place, count)
        total, most = int(count.sum()), int(count.max(initial=0))
        table = np.zeros((1 << (4 * max(most, 2) - 1).bit_length(), 4), np.int64)
        column, reading, frame, index = np.empty((4, total), np.int32)
        ts_ns: Int64 = np.empty(total, np.int64)
        source: Bytes = np.empty(total, np.uint8)
        unknown = np.empty((strings, 4), np.int64)
        found, strangers = k.join_values(
            payload, offset, length, frames.ingest_ns[rows], count, self._codes, self._columns,
            np.empty(max(1, strings), np.int64), table, column, reading, frame, index, ts_ns, source, unknown,
        )  # fmt: skip
        value = np.full((len(self._kinds), found), np.nan)
        quality: Bytes = np.full((len(self._kinds), found), ABSENT, np.uint8)
        spoken = np.empty((total, 3), np.int64)
        told = k.fill_columns(
            payload, offset, length, count, self._kinds, column, reading, value, quality, spoken
        )
        texts = _texts(payload, spoken[:told])
        frame = frame[:found].copy()
        value, quality = self.deriving.run(value, quality, np.ascontiguousarray(params[:, frame]), texts)
        status = np.where(why == k.W_GOOD, 0, Reason.malformed).astype(np.int32)
        status[why == k.W_UTF8] = Reason.encoding

        def sentence(at: int) -> str:
            return f"{_WHY[int(why[at])]} at byte {place[at]}"

        names, unknown_frame = _unknown(payload, unknown[:strangers], len(rows))
        return Decoded(
            frame=frame,
            index=index[:found].copy(),
            ts_ns=ts_ns[:found].copy(),
            time_source=source[:found].copy(),
            value=np.ascontiguousarray(value),
            quality=np.ascontiguousarray(quality),
            status=status,
            place=place,
            texts=texts,
            detail=Sentences(status, sentence),
            unknown=names,
            unknown_frame=unknown_frame,
        )


def _texts(payload: Bytes, spoken: Int64) -> dict[int, str]:
    """code -> text of the texts that are values, each read once."""
    codes, first = np.unique(spoken[:, 0], return_index=True)
    return {
        code: payload[start:stop].tobytes().decode("utf-8")
        for code, (_, start, stop) in zip(codes.tolist(), spoken[first].tolist(), strict=True)
    }


def _unknown(payload: Bytes, unknown: Int64, frames: int) -> tuple[dict[str, int], Bytes]:
    """Undeclared names -> how many values they had; and uint8[R], frames that had one."""
    carried = unknown[unknown[:, 3] > 0]
    over: Bytes = np.zeros(frames, np.uint8)
    over[carried[:, 0]] = 1
    found: dict[bytes, int] = {}
    for _, start, stop, values in carried.tolist():
        name = payload[start:stop].tobytes()
        found[name] = found.get(name, 0) + values
    return {name.decode("utf-8"): values for name, values in found.items()}, over
