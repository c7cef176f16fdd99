"""Binary layouts in frames that are text: hexadecimal, base64, base64url (`encoding:`).

Frame by frame in Python, about 1 us each: gateways that write text send few frames.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import replace
from typing import Final

import numpy as np

from operators.batch import Float64, FrameBatch, Int64
from operators.decode.columns import Decoded, Decoder
from operators.rejects import Reason

_BLANKS: Final = b" \t\r\n"
_BETWEEN: Final = {"hex": _BLANKS + b":-", "base64": _BLANKS, "base64url": _BLANKS}
_WRONG: Final = {
    "hex": re.compile(rb"[^0-9A-Fa-f \t\r\n:-]"),
    "base64": re.compile(rb"[^0-9A-Za-z+/= \t\r\n]"),
    "base64url": re.compile(rb"[^0-9A-Za-z_\-= \t\r\n]"),
}
_NAMES: Final = {"hex": "hexadecimal", "base64": "base64", "base64url": "base64url"}
_URL_LETTERS: Final = bytes.maketrans(b"-_", b"+/")


def unpack_frame(raw: bytes, encoding: str) -> bytes | tuple[int, str]:
    """The bytes that a frame stands for, or the byte where it stands for none, and why.

    hex: pairs of digits, either case, blanks, `:` and `-` anywhere between them, `0x` before;
    base64, base64url: their own alphabet, blanks between, padded or not.
    """
    begin = len(raw) - len(raw.lstrip(_BLANKS))
    if encoding == "hex" and raw[begin : begin + 2] in (b"0x", b"0X"):
        begin += 2
    wrong = _WRONG[encoding].search(raw, begin)
    if wrong is not None:
        return wrong.start(), f"byte {wrong.start()} is no {_NAMES[encoding]} digit"
    text = raw[begin:].translate(None, _BETWEEN[encoding])
    if encoding == "hex":
        if len(text) % 2:
            return len(raw), f"an odd number of hexadecimal digits ({len(text)})"
        return binascii.unhexlify(text)
    digits = text.rstrip(b"=")
    padding = raw.find(b"=")
    if b"=" in digits or len(text) - len(digits) > 2:
        return padding, f"padding at byte {padding}, where none belongs"
    if len(digits) % 4 == 1 or (padding >= 0 and len(text) % 4):
        return len(raw), f"{len(text)} letters are no whole {_NAMES[encoding]}"
    return binascii.a2b_base64(digits.translate(_URL_LETTERS) + b"=" * (-len(digits) % 4))


class EncodedDecoder:
    """Another decoder behind the encoding of whole frames; a frame that is not so written is an
    `encoding` reject."""

    def __init__(self, inner: Decoder, encoding: str) -> None:
        self.inner, self.encoding = inner, encoding
        self.param_names = inner.param_names

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; a place within the layout counts from the first decoded byte."""
        parts: list[bytes] = []
        good: list[int] = []
        refused: dict[int, tuple[int, str]] = {}
        for at, row in enumerate(rows.tolist()):
            found = unpack_frame(frames.frame(row), self.encoding)
            if isinstance(found, bytes):
                parts.append(found)
                good.append(at)
            else:
                refused[at] = found
        taken = np.array(good, np.int64)
        length = np.array([len(part) for part in parts], np.int64)
        row = rows[taken]
        inside = replace(
            frames,
            payload=np.frombuffer(b"".join(parts) or b"\0", np.uint8).copy(),
            offset=np.cumsum(length) - length,
            length=length,
            address=frames.address[row],
            ingest_ns=frames.ingest_ns[row],
            position=frames.position[row],
            flags=frames.flags[row],
        )
        decoded = self.inner.decode(
            inside, np.arange(len(taken), dtype=np.int64), np.ascontiguousarray(params[:, taken])
        )
        decoded.frame = taken[decoded.frame].astype(np.int32)
        decoded.detail = {
            int(taken[at]): f"in the decoded bytes: {text}" for at, text in decoded.detail.items()
        }
        status, place = np.zeros(len(rows), np.int32), np.full(len(rows), -1, np.int64)
        status[taken], place[taken] = decoded.status, decoded.place
        for at, (where, why) in refused.items():
            status[at], place[at], decoded.detail[at] = Reason.encoding, where, why
        decoded.status, decoded.place = status, place
        if decoded.unknown_frame is not None:
            unknown = np.zeros(len(rows), np.uint8)
            unknown[taken] = decoded.unknown_frame
            decoded.unknown_frame = unknown
        return decoded
