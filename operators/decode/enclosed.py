"""Text (or MessagePack, CBOR) that stands within a frame, and its checksum: `part:` and `check:` of the
formats json, csv, msgpack and cbor.

NMEA 0183 is `check: {xor8: {from: "$", to: "*"}}`: all between the two is covered, and two hexadecimal
digits behind `to` say the sum. `part: "4..-3"` is text in a binary frame. Frame by frame in Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from operators.batch import GOOD, UNCERTAIN, Float64, FrameBatch, Int64
from operators.decode.binary_fields import parse_range
from operators.decode.columns import Decoded, Decoder
from operators.decode.layout_tables import crc_table, reflected
from operators.document import Node, Problems, nearest
from operators.rejects import Reason

KINDS: Final = ("crc8", "crc16", "crc32", "sum8", "sum16", "xor8")
CHECK_KEYS: Final = ("from", "to", "over", "at", "as", "order", "init", "xor", "poly", "reflect", "on_fail")
PART_KEYS: Final = ("from", "to")
WRITTEN: Final = ("hex", "dec", "raw")
_DIGITS: Final = {"hex": re.compile(rb"[0-9A-Fa-f]+"), "dec": re.compile(rb"[0-9]+")}


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a frame: inclusive places (None = open), or between two texts: behind the first `begin`,
    before the last `end` ("" = from the frame's first byte, to its last)."""

    over: tuple[int | None, int | None] = (None, None)
    begin: bytes = b""
    end: bytes = b""

    def of(self, frame: bytes) -> tuple[int, int] | None:
        """(first, behind the last); None where the frame has no such part."""
        if self.begin or self.end:
            first = frame.find(self.begin)
            last = frame.rfind(self.end) if self.end else len(frame)
            first += len(self.begin) if first >= 0 else 0
            return (
                (first, last) if 0 <= first <= last and (self.begin == b"" or self.begin in frame) else None
            )
        low, high = self.over
        first = 0 if low is None else low if low >= 0 else len(frame) + low
        last = len(frame) if high is None else (high if high >= 0 else len(frame) + high) + 1
        return (first, last) if 0 <= first <= last <= len(frame) else None


@dataclass(frozen=True, slots=True)
class TextCheck:
    """A checksum over a part. at: where it stands (None: behind the part's `end`); written: hex, dec, raw."""

    kind: str
    width: int
    part: Part
    at: int | None
    written: str
    little: bool
    poly: int
    init: int
    xor: int
    reflect: bool
    flag: bool

    def sum_of(self, data: bytes) -> int:
        """What the check should say."""
        mask = (1 << self.width) - 1
        if self.kind == "sum":
            return ((self.init + sum(data)) & mask) ^ self.xor
        if self.kind == "xor":
            total = self.init
            for byte in data:
                total ^= byte
            return total ^ self.xor
        table = crc_table(self.width, self.poly, self.reflect)
        register = reflected(self.init, self.width) if self.reflect else self.init
        for byte in data:
            if self.reflect:
                register = (register >> 8) ^ table[(register ^ byte) & 0xFF]
            else:
                register = ((register << 8) & mask) ^ table[(register >> (self.width - 8)) & 0xFF ^ byte]
        return register ^ self.xor

    def said(self, frame: bytes, last: int) -> tuple[int, int | None]:
        """(where it stands, what it says; None = it is not there). last: byte behind the part."""
        at = (
            last + len(self.part.end)
            if self.at is None
            else self.at
            if self.at >= 0
            else len(frame) + self.at
        )
        size = self.width // 8 if self.written == "raw" else self.width // 4
        field = frame[max(at, 0) : at + size]
        if self.written == "raw":
            told = int.from_bytes(field, "little" if self.little else "big") if len(field) == size else None
            return at, told
        if self.written == "dec":
            match = _DIGITS["dec"].match(frame, max(at, 0))
            return at, int(match[0][:20]) if match is not None else None
        return at, int(field, 16) if len(field) == size and _DIGITS["hex"].fullmatch(field) else None


@dataclass(frozen=True, slots=True)
class Enclosed:
    """What stands around the text of a frame."""

    part: Part | None
    check: TextCheck | None


def parse_enclosed(node: Node, problems: Problems, *, checked: bool) -> Enclosed | None:
    """`part:` and `check:` of a section; None where it has neither. checked: `check` is one of these."""
    given, told = node.get("part"), node.get("check") if checked else None
    if given is None and told is None:
        return None
    part = None if given is None else _part(given, problems)
    check = None if told is None else _check(told, problems)
    return Enclosed(part, check)


def _part(node: Node, problems: Problems) -> Part | None:
    if node.is_map:
        for key in node.keys:
            if key not in PART_KEYS:
                problems.add(node, f"unknown key{nearest(key, PART_KEYS)}", key=key)
        begin, end = _text(node.get("from"), problems), _text(node.get("to"), problems)
        if not begin and not end:
            problems.add(node, 'from: and to: are texts that stand around it, e.g. {from: "{", to: "*"}')
        return Part(begin=begin, end=end)
    return Part(_over(node, problems))


def _over(node: Node, problems: Problems) -> tuple[int | None, int | None]:
    ends = parse_range(node.raw) if isinstance(node.value, str) else None
    if ends is None:
        problems.add(node, f'bytes such as "4..-3" are expected, not {node.raw!r}')
        return None, None
    low, high = (None if end is None else int(end) for end in ends)
    return low, high


def _text(node: Node | None, problems: Problems) -> bytes:
    if node is None:
        return b""
    if not isinstance(node.value, str) or not node.value:
        problems.add(node, 'a text is expected, in quotes, e.g. "*"')
        return b""
    return node.value.encode("utf-8")


def _check(node: Node, problems: Problems) -> TextCheck | None:
    names = [key for key in node.keys if key in KINDS] if node.is_map else []
    if not node.is_map or len(names) != 1:
        problems.add(node, f'one of {", ".join(KINDS)} is expected, e.g. {{xor8: {{from: "$", to: "*"}}}}')
        return None
    for key in node.keys:
        if key not in KINDS and key != "on_fail":
            problems.add(node, f"unknown key{nearest(key, (*KINDS, 'on_fail'))}", key=key)
    (name,) = names
    inner = node.get(name)
    if inner is None or not inner.is_map:
        problems.add(inner or node, 'a mapping is expected, e.g. {from: "$", to: "*"}')
        return None
    kind, width = name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
    known = (
        CHECK_KEYS if kind == "crc" else tuple(key for key in CHECK_KEYS if key not in ("poly", "reflect"))
    )
    for key in inner.keys:
        if key not in known:
            problems.add(inner, f"unknown key{nearest(key, known)}", key=key)
    if kind == "crc" and inner.get("poly") is None:
        problems.add(inner, "'poly' is missing: the polynomial in normal form, such as 0x1021")
    begin, end = _text(inner.get("from"), problems), _text(inner.get("to"), problems)
    over = inner.get("over")
    if over is not None and (begin or end):
        problems.add(over, "either 'over' or 'from' and 'to'")
    at = inner.get("at")
    if at is None and not end:
        problems.add(inner, "where the check stands is missing: 'to', the text before it, or 'at', its byte")
    if at is not None and (not isinstance(at.value, int) or isinstance(at.value, bool)):
        problems.add(at, "a byte is expected, from the end where it is negative, such as -2")
        return None
    spans = (None, None if at is None else at.value - 1) if over is None else _over(over, problems)
    return TextCheck(
        kind,
        width,
        Part(begin=begin, end=end) if begin or end else Part(spans),
        None if at is None else at.value,
        _choice(inner.get("as"), WRITTEN, "hex" if at is None else "raw", problems),
        _choice(inner.get("order"), ("be", "le"), "be", problems) == "le",
        _number(inner.get("poly"), width, problems),
        _number(inner.get("init"), width, problems),
        _number(inner.get("xor"), width, problems),
        inner.get("reflect") is not None and inner.get("reflect").value is True,  # type: ignore[union-attr]  # just asked
        "flag" in (_on_fail(inner, problems), _on_fail(node, problems)),
    )


def _on_fail(node: Node, problems: Problems) -> str:
    return _choice(node.get("on_fail"), ("reject", "flag"), "reject", problems)


def _choice(node: Node | None, known: tuple[str, ...], default: str, problems: Problems) -> str:
    if node is None:
        return default
    if node.value not in known:
        problems.add(node, f"unknown word '{node.raw}'; one of {', '.join(known)}")
        return default
    return str(node.value)


def _number(node: Node | None, width: int, problems: Problems) -> int:
    if node is None:
        return 0
    if not isinstance(node.value, int) or isinstance(node.value, bool) or not 0 <= node.value < 1 << width:
        problems.add(node, f"a whole number of {width} bits is expected")
        return 0
    return node.value


class _Refused(NamedTuple):
    reason: Reason
    place: int
    told: str


class EnclosedDecoder:
    """Another decoder for the part of each frame that its check covers, or that `part` names."""

    def __init__(self, inner: Decoder, spec: Enclosed) -> None:
        self.inner, self.spec = inner, spec
        self.param_names = inner.param_names

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; places count from the frame's own first byte."""
        good: list[int] = []
        spans: list[tuple[int, int]] = []
        doubtful: list[bool] = []
        refused: dict[int, _Refused] = {}
        for at, row in enumerate(rows.tolist()):
            found = self._look(frames.frame(row))
            if isinstance(found, _Refused):
                refused[at] = found
            else:
                good.append(at)
                spans.append(found[:2])
                doubtful.append(found[2])
        taken = np.array(good, np.int64)
        row = rows[taken]
        first = np.array([low for low, _ in spans], np.int64)
        inside = replace(
            frames,
            offset=frames.offset[row] + first,
            length=np.array([high - low for low, high in spans], np.int64),
            address=frames.address[row],
            ingest_ns=frames.ingest_ns[row],
            position=frames.position[row],
            flags=frames.flags[row],
        )
        decoded = self.inner.decode(
            inside, np.arange(len(taken), dtype=np.int64), np.ascontiguousarray(params[:, taken])
        )
        flagged = np.array(doubtful, np.bool_)[decoded.frame] if len(taken) else np.zeros(0, np.bool_)
        decoded.quality[:, flagged] = np.where(
            decoded.quality[:, flagged] == GOOD, UNCERTAIN, decoded.quality[:, flagged]
        )
        decoded.frame = taken[decoded.frame].astype(np.int32)
        detail = {}
        for at, text in decoded.detail.items():
            inner_place = int(decoded.place[at])
            detail[int(taken[at])] = text.replace(
                f" at byte {inner_place}", f" at byte {inner_place + int(first[at])}"
            )
        status, place = np.zeros(len(rows), np.int32), np.full(len(rows), -1, np.int64)
        status[taken] = decoded.status
        place[taken] = np.where(decoded.place >= 0, decoded.place + first, -1)
        for at, (reason, where, why) in refused.items():
            status[at], place[at], detail[at] = reason, where, why
        decoded.status, decoded.place, decoded.detail = status, place, detail
        if decoded.unknown_frame is not None:
            unknown = np.zeros(len(rows), np.uint8)
            unknown[taken] = decoded.unknown_frame
            decoded.unknown_frame = unknown
        return decoded

    def _look(self, frame: bytes) -> tuple[int, int, bool] | _Refused:
        """(first, behind the last, doubtful) of the part, or why the frame is refused."""
        check, flag = self.spec.check, False
        span = (0, len(frame))
        if check is not None:
            covered = check.part.of(frame)
            if covered is None:
                return _Refused(Reason.short, len(frame), _no_part(check.part, "what the check covers"))
            span = covered if self.spec.part is None and (check.part.begin or check.part.end) else span
            at, said = check.said(frame, covered[1])
            wanted = check.sum_of(frame[covered[0] : covered[1]])
            if said != wanted:
                digits = check.width // 4
                told = "is not there" if said is None else f"says {said:0{digits}X}"
                if not check.flag:
                    sentence = f"the check at byte {at} {told}, the bytes give {wanted:0{digits}X}"
                    return _Refused(Reason.check, min(max(at, 0), len(frame)), sentence)
                flag = True
        if self.spec.part is not None:
            found = self.spec.part.of(frame)
            if found is None:
                return _Refused(Reason.short, len(frame), _no_part(self.spec.part, "the part that is read"))
            span = found
        return span[0], span[1], flag


def _no_part(part: Part, what: str) -> str:
    if part.begin or part.end:
        texts = " and ".join(repr(text.decode()) for text in (part.begin, part.end) if text)
        return f"{texts} around {what} are not in the frame"
    return f"the frame ends before {what}"
