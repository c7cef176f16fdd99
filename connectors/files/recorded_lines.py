"""The lines of recorded input (FORMATS section 4): what each is, and a file of them, many at a time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.errors import ConfigError
from connectors.files.rows import JSON_SUFFIXES, is_csv_name

CHUNK: Final = 4 << 20
LINE_BYTES: Final = 64 << 20

Headers = dict[str, str] | list[tuple[str, str]] | None


class RecordedLine(msgspec.Struct, omit_defaults=True):
    """One line: a frame (it has `ingest_ts`), the head of a capture, or another journal entry."""

    ingest_ts: int | None = None
    source: str | None = None
    topic: str = ""
    payload: str | None = None
    payload_hex: str | None = None
    port: int = -1
    headers: Headers = None
    retained: bool = False
    historical: bool = False
    quarantined: bool = False
    line: int = 0  # in the file that it came from
    tick: int | None = None
    capture: int | None = None
    position: int = 0
    connected: str | None = None
    disconnected: str | None = None
    started: Any = None
    stopped: Any = None
    clock_step: int | None = None
    action: dict[str, Any] | None = None
    quarantine: dict[str, Any] | None = None
    gap: dict[str, Any] | None = None
    plant: str | None = None
    files: dict[str, str] | None = None
    apply_id: str = ""
    by: str = ""
    why: str = ""
    at: int | None = None


def has_tick(path: Path) -> bool:
    """Whether a recording holds a tick. Reads up to the first one."""
    return any(line.tick is not None for line in _lines_with(b'"tick"', path))


def quarantined(path: Path) -> set[int]:
    """Positions of the frames that a capture names as set aside: such a line stands behind its frame,
    which may have been captured before it was marked."""
    named = (line.quarantine for line in _lines_with(b'"quarantine":', path))
    positions = (one.get("position") for one in named if one is not None)
    return {position for position in positions if isinstance(position, int)}  # any other is told when read


def _lines_with(word: bytes, path: Path) -> Iterator[RecordedLine]:
    """The lines in whose text a word stands; one that cannot be read is told with its number when it is
    read for good."""
    decoder = msgspec.json.Decoder(RecordedLine)
    for _, chunk in chunks(path):
        at = chunk.find(word)
        while at >= 0:
            start, end = chunk.rfind(b"\n", 0, at) + 1, chunk.find(b"\n", at)
            end = len(chunk) if end < 0 else end
            with suppress(msgspec.MsgspecError):
                yield decoder.decode(chunk[start:end])
            at = chunk.find(word, end)


def is_csv(path: Path) -> bool:
    """Whether it holds rows: by its name; where that says nothing, recorded lines begin with a brace."""
    if is_csv_name(path.name):
        return True
    if path.name.lower().endswith(JSON_SUFFIXES):
        return False
    return not next((chunk for _, chunk in chunks(path)), b"").lstrip().startswith(b"{")


def chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file, many at a time, and the number of the first."""
    number, rest = 1, b""
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                end = data.rfind(b"\n") + 1
                if not end:
                    rest += data
                    if len(rest) > LINE_BYTES:
                        raise ConfigError(f"{path}:{number}  a line of more than {LINE_BYTES >> 20} MiB")
                    continue
                chunk, rest = rest + data[:end], data[end:]
                yield number, chunk
                number += chunk.count(b"\n")
    except OSError as error:
        raise ConfigError(f"{path}  cannot be read: {error.strerror}") from error
    if rest:
        yield number, rest


def tell_bad_line(path: Path, number: int, chunk: bytes, decoder: Any) -> None:
    """Raises ConfigError for the first line of a chunk that is none; number: of its first line."""
    for offset, line in enumerate(chunk.split(b"\n")):
        if not line.strip():
            continue
        try:
            decoder.decode(line)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}:{number + offset}  {_plain(str(error))}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}:{number + offset}  not a JSON object: {error}") from error


def _plain(message: str) -> str:
    """msgspec's `... - at `$.topic`` as a place and a sentence."""
    what, at, where = message.partition(" - at `$.")
    return f"{where.rstrip('`')}: {what[:1].lower()}{what[1:]}" if at else message


def line_number(first: int, chunk: bytes, index: int) -> int:
    """The number of a chunk's line `index`, blank lines not counted in index."""
    at = -1
    for offset, line in enumerate(chunk.split(b"\n")):
        at += bool(line.strip())
        if at == index:
            return first + offset
    return first


def control_of(line: RecordedLine) -> tuple[str, dict[str, Any]]:
    """Kind and data of the journal entry that a line is which is neither a frame nor a tick nor the head of
    a capture. Raises ValueError where it is none."""
    if line.connected is not None:
        return "connected", {"source": line.connected}
    if line.disconnected is not None:
        return "disconnected", {"source": line.disconnected}
    if line.clock_step is not None:
        return "clock_step", {"step_ms": line.clock_step}
    if line.quarantine is not None:
        return "quarantine", line.quarantine
    if line.gap is not None:
        return "gap", line.gap
    if line.action is not None:
        return "action", line.action
    if line.plant is not None:
        try:
            files = {path: base64.b64decode(text, validate=True) for path, text in (line.files or {}).items()}
        except binascii.Error as error:
            raise ValueError(f"files: not base64: {error}") from error
        about = {"apply_id": line.apply_id, "by": line.by, "why": line.why}
        told = {key: text for key, text in about.items() if text}
        return "plant", {"sha256": line.plant, "files": files, **told}
    for kind, value in (("started", line.started), ("stopped", line.stopped)):
        if value is not None:
            return kind, value if isinstance(value, dict) else {}
    if line.source is not None or line.payload is not None or line.payload_hex is not None:
        raise ValueError("a frame needs ingest_ts, milliseconds since 1970")
    raise ValueError("no entry of a recording: neither a frame (ingest_ts) nor tick, connected, ...")
