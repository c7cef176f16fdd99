"""MessagePack and CBOR frames (`format: msgpack`, `format: cbor`), read as the JSON that they stand for.

The slow way: a kernel looks at the frame, a library reads it, and its JSON text goes on into the decoder
of JSON frames, so that paths, times, types, rows and limits mean the same in all three.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import cbor2
import msgspec
import numpy as np

from operators.batch import Float64, FrameBatch, Int64
from operators.decode import packed_kernels as k
from operators.decode.columns import Decoded, Decoder
from operators.decode.json_spec import JsonSpec, path_text
from operators.rejects import Reason

_REASONS: Final = {k.CUT: Reason.short, k.DEEP: Reason.too_deep, k.NO_NUMBER: Reason.bad_number}
_NAMES: Final = {"msgpack": "MessagePack", "cbor": "CBOR"}
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


class Unpacked:
    """The frames of a batch that could be read, as JSON text; and why the others could not.

    good: int64[G] which of the R frames; frames: G frames of JSON.
    refused: frame -> (reason, byte or -1, sentence).
    """

    def __init__(self, good: Int64, frames: FrameBatch, refused: dict[int, tuple[Reason, int, str]]) -> None:
        self.good, self.frames, self.refused = good, frames, refused


def unpack(frames: FrameBatch, rows: Int64, kind: str, depth: int, binary: str = "hex") -> Unpacked:
    """Read the frames at `rows`. kind: msgpack or cbor; binary: how byte strings are written, hex or base64.

    A key that is a whole number is its digits. Byte strings (and MessagePack's own extension types) become
    texts; a time of either format is a text in ISO 8601; CBOR's `undefined` is null.
    """
    count = len(rows)
    offset, length = frames.offset[rows], frames.length[rows]
    payload = frames.payload if frames.payload.flags.writeable else frames.payload.copy()
    why, odd = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    place, stack = np.zeros(count, np.int64), np.zeros(depth + 1, np.int64)
    if kind == "cbor":
        out, size = np.zeros(int(length.sum()) + 1, np.uint8), np.zeros(count, np.int32)
        k.scan_cbor(payload, offset, length, depth, stack, why, place, odd, out, size)
        payload, length = out, size.astype(np.int64)
        offset = np.cumsum(length) - length
    else:
        k.scan_msgpack(payload, offset, length, depth, stack, why, place, odd)
    read = cbor2.loads if kind == "cbor" else msgspec.msgpack.decode
    view = memoryview(payload)  # type: ignore[arg-type]  # an array is a buffer
    texts: list[bytes] = []
    good: list[int] = []
    refused: dict[int, tuple[Reason, int, str]] = {}
    wrong, strange = why.tolist(), odd.tolist()
    starts, stops = offset.tolist(), (offset + length).tolist()
    for at in range(count):
        if wrong[at]:
            told = f"{k.WHY[wrong[at]]} at byte {int(place[at])}"
            refused[at] = _REASONS.get(wrong[at], Reason.malformed), int(place[at]), told
            continue
        try:
            value = read(view[starts[at] : stops[at]])
            texts.append(_encode(_plain(value, binary) if strange[at] else value))
        except (ValueError, OverflowError, cbor2.CBORDecodeError) as error:
            refused[at] = Reason.malformed, -1, _sentence(error, kind)
        else:
            good.append(at)
    taken = np.array(good, np.int64)
    size_of = np.array([len(text) for text in texts], np.int64)
    row = rows[taken]
    inside = replace(
        frames,
        payload=np.frombuffer(b"".join(texts) or b"\0", np.uint8).copy(),
        offset=np.cumsum(size_of) - size_of,
        length=size_of,
        address=frames.address[row],
        ingest_ns=frames.ingest_ns[row],
        position=frames.position[row],
        flags=frames.flags[row],
    )
    return Unpacked(taken, inside, refused)


def _plain(value: Any, binary: str) -> Any:
    """The same without what JSON has no value for."""
    if isinstance(value, dict):
        return {key: _plain(item, binary) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, binary) for item in value]
    if isinstance(value, msgspec.msgpack.Ext):
        value = bytes(value.data)
    if isinstance(value, bytes):
        return value.hex() if binary == "hex" else value  # the encoder writes bytes as base64
    return None if value is cbor2.undefined else value


def _sentence(error: Exception, kind: str) -> str:
    """Which of the things that only the library sees is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnicodeError):
            return "a text that is not UTF-8"
        cause = cause.__cause__
    text = str(error).lower()
    if "time" in text:
        return "a tagged time is none, or lies beyond the years 1 to 9999"
    return f"not {_NAMES[kind]} that can be read"


class PackedDecoder:
    """A decoder of JSON behind one of the two formats."""

    def __init__(self, inner: Decoder, spec: JsonSpec, kind: str, depth: int) -> None:
        self.inner, self.kind, self.depth = inner, kind, depth
        self._binary = "base64" if spec.encoding == "base64" else "hex"
        self._layout = f"in {path_text(spec.binary) or 'the text'}: " if spec.binary is not None else "\0"
        self.param_names = inner.param_names

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; the place of what JSON would refuse is told by its path alone."""
        found = unpack(frames, rows, self.kind, self.depth, self._binary)
        good = found.good
        inside = np.arange(len(good), dtype=np.int64)
        decoded = self.inner.decode(found.frames, inside, np.ascontiguousarray(params[:, good]))
        decoded.frame = good[decoded.frame].astype(np.int32)
        status, place = np.zeros(len(rows), np.int32), np.full(len(rows), -1, np.int64)
        status[good] = decoded.status
        detail: dict[int, str] = {}
        for at, text in decoded.detail.items():
            mine = int(good[at])
            detail[mine] = text
            if self._layout in text:
                place[mine] = decoded.place[at]
            else:  # a byte of the JSON text, which nobody sent
                detail[mine] = text.replace(f" at byte {int(decoded.place[at])}", "")
        for at, (reason, where, why) in found.refused.items():
            status[at], place[at], detail[at] = reason, where, why
        decoded.status, decoded.place, decoded.detail = status, place, detail
        if decoded.unknown_frame is not None:
            unknown = np.zeros(len(rows), np.uint8)
            unknown[good] = decoded.unknown_frame
            decoded.unknown_frame = unknown
        return decoded
