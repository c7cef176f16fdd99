"""Binary layouts inside JSON text (`format: json` with `binary: data.bin`)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import numpy as np

from operators.batch import Float64, FrameBatch, Int64
from operators.decode import json_kernels as k
from operators.decode.columns import Decoded, Decoder
from operators.decode.json_decoder import JsonWalker, details, event_times
from operators.decode.json_spec import JsonSpec, Path, path_text
from operators.rejects import Reason

_HEX: Final = re.compile(rb"(?:0[xX])?((?:[0-9a-fA-F]{2})*)\Z")
_BLANKS: Final = re.compile(rb"[ \t\r\n:-]+")


def unpack_text(raw: bytes, encoding: str) -> bytes | None:
    """The bytes that a text stands for; None if it is neither. `auto`: hexadecimal if it can be
    read so (pairs of digits; blanks, `:` and `-` between them and `0x` before are passed over), else
    base64 (either alphabet, padded or not). An even text of nothing but 0-9 a-f is hexadecimal."""
    if encoding in ("auto", "hex"):
        match = _HEX.match(_BLANKS.sub(b"", raw))
        if match is not None:
            return bytes.fromhex(match[1].decode("ascii"))
        if encoding == "hex":
            return None
    text = raw.strip().replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


class JsonBinaryDecoder:
    """The envelope by the JSON walk, what is in it by a binary decoder. A reading without a time of
    its own has the envelope's; that time also stands for the frame's arrival in the layout."""

    def __init__(
        self,
        spec: JsonSpec,
        metrics: tuple[tuple[str, str], ...],
        *,
        depth: int = 64,
        device: Path | None = None,
    ) -> None:
        from operators.decode.binary_decoder import BinaryDecoder

        self.spec = spec
        self.inner: Decoder = BinaryDecoder(spec.layout, metrics)
        self.param_names = self.inner.param_names
        self.walker = JsonWalker(spec, (), device, depth)

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; a place within the binary part counts from its own first byte."""
        found = self.walker.walk(frames, rows)
        ts_ns, time_source = event_times(found, self.spec, frames.ingest_ns[rows])
        details(found)
        parts = self._parts(frames, rows, found)
        good = np.flatnonzero(found.status == 0)
        length = np.array([len(part) for part in parts], np.int64)
        inside = FrameBatch(
            payload=np.frombuffer(b"".join(parts), np.uint8).copy(),
            offset=np.cumsum(length) - length,
            length=length,
            address=frames.address[rows][good],
            addresses=frames.addresses,
            ingest_ns=ts_ns[good],
            position=frames.position[rows][good],
            flags=frames.flags[rows][good],
            ticks=frames.ticks,
        )
        decoded = self.inner.decode(
            inside, np.arange(len(good), dtype=np.int64), np.ascontiguousarray(params[:, good])
        )
        own = decoded.time_source == 0
        frame = good[decoded.frame].astype(np.int32)
        found.status[good] = decoded.status
        found.place[good] = decoded.place
        where = path_text(self.spec.binary or ()) or "the text"
        for at, text in decoded.detail.items():
            found.detail[int(good[at])] = f"in {where}: {text}"
        unknown_frame = None
        if decoded.unknown_frame is not None:
            unknown_frame = np.zeros(len(rows), np.uint8)
            unknown_frame[good] = decoded.unknown_frame
        return Decoded(
            frame=frame,
            index=decoded.index,
            ts_ns=np.where(own, decoded.ts_ns, ts_ns[frame]),
            time_source=np.where(own, 0, time_source[frame]).astype(np.uint8),
            value=decoded.value,
            quality=decoded.quality,
            status=found.status,
            place=found.place,
            texts=decoded.texts,
            detail=found.detail,
            unknown=decoded.unknown,
            unknown_frame=unknown_frame,
        )

    def _parts(self, frames: FrameBatch, rows: Int64, found: Any) -> list[bytes]:
        """The binary part of each good frame; a frame without one becomes a reject."""
        parts: list[bytes] = []
        where = path_text(self.spec.binary or ()) or "the row"
        for at in np.flatnonzero(found.status == 0).tolist():
            start, stop, kind = found.spans[1, at].tolist()
            data = None
            if start >= 0 and kind == k.SPAN_TEXT:
                data = unpack_text(frames.payload[start:stop].tobytes(), self.spec.encoding)
            if data is None:
                found.status[at] = Reason.malformed
                found.place[at] = start - int(frames.offset[rows[at]]) if start >= 0 else -1
                kinds = {"auto": "hexadecimal or base64", "hex": "hexadecimal", "base64": "base64"}
                found.detail[at] = f"{where}: a text in {kinds[self.spec.encoding]} is expected"
            else:
                parts.append(data)
        return parts
