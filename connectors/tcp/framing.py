"""Frames out of a byte stream: length prefixes and delimiters.

A framer keeps what has not become a frame yet, never more than the cap of a frame plus what one
read brought. Bytes that can be no frame become one `Part` with the reason and the beginning of
them, so that garbage is seen and counted, once.
"""

from __future__ import annotations

import re
from typing import Protocol

from connectors.errors import ConfigError
from connectors.tcp.config import Delimiter, Fixed, Framing, JsonLines, LengthPrefix, ModbusTcp, StxEtx
from connectors.tcp.parts import HEAD, Part, stream_bytes
from connectors.tcp.synchronising import FixedFramer, ModbusFramer, StxEtxFramer

__all__ = ["HEAD", "Framer", "Part", "framer", "stream_bytes"]


class Framer(Protocol):
    """One connection's bytes on their way to frames."""

    broken: bool  # nothing that follows can be understood: the connection is to be closed

    @property
    def partial(self) -> int:
        """Bytes of a frame that has begun and not ended."""

    def feed(self, data: bytes) -> list[Part]:
        """The parts that are complete with these bytes."""

    def end(self, why: str) -> list[Part]:
        """The connection ends here: what is left over, told as garbage."""


def framer(config: Framing, max_frame: int) -> Framer:
    """A framer for one connection; frames are capped by `framing.max` and by `max_frame`.
    Raises `ConfigError` for a framing that cannot work."""
    if isinstance(config, Fixed):
        return FixedFramer(config, max_frame)
    if isinstance(config, ModbusTcp):
        return ModbusFramer(config)
    cap = min(config.max, max_frame)
    if isinstance(config, LengthPrefix):
        return LengthFramer(config, cap)
    if isinstance(config, StxEtx):
        return StxEtxFramer(config, cap)
    if isinstance(config, JsonLines):
        return JsonLinesFramer(cap)
    return DelimiterFramer(config, cap)


class LengthFramer:
    """Each frame behind its length. A length beyond the cap cannot be stepped over safely, as
    it may be no length at all: the connection is broken."""

    def __init__(self, config: LengthPrefix, cap: int) -> None:
        self._size = config.size
        self._little = config.order == "le"
        self._less = config.size if config.includes_header else 0
        self._cap = cap
        self._buffer = bytearray()
        self.broken = False

    @property
    def partial(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Part]:
        if self.broken:
            return []
        buffer, size = self._buffer, self._size
        order = "little" if self._little else "big"
        buffer += data
        parts: list[Part] = []
        start = 0
        while len(buffer) - start >= size:
            body = start + size
            length = int.from_bytes(buffer[start:body], order) - self._less  # type: ignore[arg-type]  # one of the two
            if not 0 <= length <= self._cap:
                said = length + self._less
                parts.append(
                    Part(bytes(buffer[start : start + HEAD]), f"length {said}, at most {self._cap} allowed")
                )
                self.broken = True
                start = len(buffer)
                break
            if len(buffer) - body < length:
                break
            parts.append(Part(bytes(buffer[body : body + length])))
            start = body + length
        del buffer[:start]
        return parts

    def end(self, why: str) -> list[Part]:
        left, self._buffer = self._buffer, bytearray()
        return [Part(bytes(left[:HEAD]), f"{why} after {len(left)} bytes of a frame")] if left else []


class DelimiterFramer:
    """Each frame before a delimiter; the byte behind an escape is itself, the escape is removed.
    Bytes beyond the cap are told once and skipped up to the next delimiter."""

    def __init__(self, config: Delimiter, cap: int) -> None:
        self._delimiter = stream_bytes("delimiter", config.delimiter)
        self._escape = b"" if config.escape is None else stream_bytes("escape", config.escape)
        if not self._delimiter:
            raise ConfigError("framing.delimiter: is empty; give at least one character")
        if self._escape and (len(self._escape) != 1 or self._escape in self._delimiter):
            raise ConfigError("framing.escape: must be one character that is not in the delimiter")
        escaped = re.escape(self._escape)
        self._tokens = re.compile(
            b"(?s)" + (escaped + b".|" if escaped else b"") + re.escape(self._delimiter)
        )
        self._unescape = re.compile(b"(?s)" + escaped + b"(.)") if escaped else None
        self._cap = cap
        self._raw_cap = cap * 2 if escaped else cap  # every byte may be escaped
        self._head = min(HEAD, self._raw_cap + 1)  # of garbage; what no cut of the stream changes
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False
        self.broken = False

    @property
    def partial(self) -> int:
        return 0 if self._skipping else len(self._buffer)

    def feed(self, data: bytes) -> list[Part]:
        buffer = self._buffer
        buffer += data
        parts: list[Part] = []
        start = scanned = 0
        for found in self._tokens.finditer(buffer, self._scanned):
            scanned = found.end()
            if self._escape and buffer.startswith(self._escape, found.start()):
                continue
            self._frame(bytes(buffer[start : found.start()]), parts)
            start = found.end()
        # a delimiter or an escape may have begun in the last bytes
        safe = len(buffer) - max(len(self._delimiter) - 1, 1 if self._escape else 0)
        del buffer[:start]
        self._scanned = max(scanned, safe, start) - start
        if not self._skipping and len(buffer) > self._raw_cap + len(self._delimiter):
            parts.append(Part(bytes(buffer[: self._head]), f"no delimiter within {self._cap} bytes"))
            self._skipping = True
        if self._skipping:
            del buffer[: self._scanned]
            self._scanned = 0
        return parts

    def end(self, why: str) -> list[Part]:
        left, self._buffer, self._scanned = self._buffer, bytearray(), 0
        if not left or self._skipping:
            return []
        return [Part(bytes(left[:HEAD]), f"{why} after {len(left)} bytes of a frame")]

    def _frame(self, raw: bytes, parts: list[Part]) -> None:
        if self._skipping:
            self._skipping = False
            return
        payload = raw if self._unescape is None else self._unescape.sub(rb"\1", raw)
        if len(payload) > self._cap:
            parts.append(Part(raw[: self._head], f"no delimiter within {self._cap} bytes"))
        else:
            parts.append(Part(payload))


class JsonLinesFramer(DelimiterFramer):
    """Each line is a frame, without its `\\r`; blank lines are none."""

    def __init__(self, cap: int) -> None:
        super().__init__(Delimiter(), cap + 1)  # and its `\\r`
        self._line_cap = cap

    def feed(self, data: bytes) -> list[Part]:
        parts: list[Part] = []
        for payload, why, _ in super().feed(data):
            line = payload if why else payload.removesuffix(b"\r")
            if why or len(line) > self._line_cap:
                head = line[: self._line_cap + 1][:HEAD]
                parts.append(Part(head, f"no end of a line within {self._line_cap} bytes"))
            elif not line.isspace() and line:
                parts.append(Part(line))
        return parts
