"""Bodies of requests: unpacked within a bound, split into the payloads of frames. Pure.

A body's content type says what it holds:

    application/x-ndjson, application/jsonl     each line that is not blank is a frame
    application/json, and the array is a batch  each element is a frame, to the byte as it was sent
    text/csv                                    each row is a frame; the first line names the columns
                                                unless the type says header=absent
    anything else                               the body is a frame
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

import msgspec
import zstandard

GZIP: Final = 31  # zlib's window for gzip alone
ZSTD_WINDOW: Final = 8 << 20
SLICE: Final = 512  # of a zstd body at a time: a block of 4 bytes may hold 128 KB
HEADER_LINE: Final = 65_536  # of a CSV: it travels with every row's address
BOM: Final = b"\xef\xbb\xbf"
LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")

_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Refused(Exception):
    """The answer to a request that is not taken: status, one line that says why, and whether the
    same request may be taken later."""

    def __init__(self, status: int, why: str, retry_s: int | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.retry_s = status, why, retry_s


class Batch(NamedTuple):
    """Payloads of frames; `csv`: the header line that goes with them."""

    payloads: list[bytes]
    csv: str | None = None


def unpack(body: bytes, encoding: str, cap: int) -> bytes:
    """A body without its content encoding, at most `cap` bytes; no more than some MB beyond the cap
    are ever unpacked. Raises `Refused`."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name in ("gzip", "x-gzip"):
        return _gunzip(body, cap)
    if name == "zstd":
        return _unzstd(body, cap)
    raise Refused(415, f"content encoding '{encoding[:40]}' is not taken; gzip, zstd or none")


def _gunzip(body: bytes, cap: int) -> bytes:
    found = bytearray()
    left = body
    try:
        while left or not found:
            member = zlib.decompressobj(GZIP)
            found += member.decompress(left, cap + 1 - len(found))
            if len(found) > cap:
                raise Refused(413, f"the body unpacks to more than {cap} bytes")
            if not member.eof:
                raise Refused(400, "the gzip body is cut short")
            left = member.unused_data.lstrip(b"\0")
            if not found and not left:
                break
    except zlib.error as error:
        raise Refused(400, f"the body is not gzip: {error}") from error
    return bytes(found)


def _unzstd(body: bytes, cap: int) -> bytes:
    found = bytearray()
    unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    at = 0
    try:
        while at < len(body):
            frame = unpacker.decompressobj()
            while not frame.eof:
                if at >= len(body):
                    raise Refused(400, "the zstd body is cut short")
                piece = body[at : at + SLICE]
                at += len(piece)
                found += frame.decompress(piece)
                if len(found) > cap:
                    raise Refused(413, f"the body unpacks to more than {cap} bytes")
            at -= len(frame.unused_data)
    except zstandard.ZstdError as error:
        raise Refused(400, f"the body is not zstd: {error}") from error
    return bytes(found)


def split(body: bytes, content_type: str, *, arrays: bool, max_frame: int, max_batch: int) -> Batch:
    """The payloads of a body. arrays: a JSON array is a batch. Raises `Refused` for more than
    `max_batch` of them, one beyond `max_frame`, and an array that is none."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    csv = None
    if kind in LINES:
        payloads = _lines(body, max_batch)
    elif kind == "text/csv":
        csv, payloads = _rows(body, "header=absent" not in parameters.lower().replace(" ", ""), max_batch)
    elif arrays and kind == "application/json" and body.lstrip(b" \t\r\n")[:1] == b"[":
        try:
            payloads = [bytes(element) for element in _ARRAY.decode(body)]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Refused(400, f"the JSON array cannot be split: {error}") from error
    else:
        payloads = [body]
    if len(payloads) > max_batch:
        raise Refused(413, f"more than {max_batch} frames in one request")
    if payloads and len(longest := max(payloads, key=len)) > max_frame:
        place = payloads.index(longest)
        raise Refused(413, f"frame {place} has {len(longest)} bytes, at most {max_frame} allowed")
    return Batch(payloads, csv)


def _lines(body: bytes, most: int) -> list[bytes]:
    _few(body, most)
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n")
    lines = body.removeprefix(BOM).split(b"\n")
    return [line for line in lines if line and not line.isspace()]


def _rows(body: bytes, header: bool, most: int) -> tuple[str | None, list[bytes]]:
    """The header line and the rows; a line end within quotes belongs to the row."""
    _few(body, most)
    rows: list[bytes] = []
    row: list[bytes] = []
    quoted = False
    for line in body.removeprefix(BOM).split(b"\n"):
        row.append(line)
        quoted ^= line.count(b'"') % 2 == 1
        if not quoted:
            whole = b"\n".join(row).removesuffix(b"\r")
            row = []
            if whole and not whole.isspace():
                rows.append(whole)
    if row:
        raise Refused(400, "the CSV ends within a quote")
    if not header or not rows:
        return None, rows
    first = rows.pop(0)
    if len(first) > HEADER_LINE:
        raise Refused(413, f"the CSV's header line has {len(first)} bytes, at most {HEADER_LINE} allowed")
    return first.decode("utf-8", "replace"), rows


def _few(body: bytes, most: int) -> None:
    """Before anything is made of a body of line ends."""
    if body.count(b"\n") > 2 * most:
        raise Refused(413, f"more than {most} frames in one request")
