"""What was heard of a plant: frames in order, read from a recording and written as one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.errors import ConfigError
from connectors.files.recording import read_recording
from operators.batch import Address

MOST_FRAMES: Final = 100_000


class HeardFrame(NamedTuple):
    """A frame as it came in. ingest_ms: milliseconds since 1970; retained: a broker kept it from before."""

    address: Address
    payload: bytes
    ingest_ms: int
    retained: bool = False

    @property
    def header(self) -> str:
        """The line with a CSV file's column names, or ""."""
        return dict(self.address.headers).get("csv", "")


def counted(number: int, what: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number} {what}" + "s" * (number != 1)


def system_words(error: OSError) -> str:
    """What a system call failed of, in the system's words alone."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def recorded_frames(path: Path) -> list[HeardFrame]:
    """The first frames of recorded input, `MOST_FRAMES` at most; raises `ConfigError` for a bad line,
    and where there is no frame."""
    found: list[HeardFrame] = []
    for item in read_recording([path]):
        batch = item.frames
        body = batch.payload.tobytes()
        for offset, length, address, ingest in zip(
            batch.offset.tolist(),
            batch.length.tolist(),
            batch.address.tolist(),
            batch.ingest_ns.tolist(),
            strict=True,
        ):
            payload = body[offset : offset + length]
            found.append(HeardFrame(batch.addresses[address], payload, ingest // 1_000_000))
        if len(found) >= MOST_FRAMES:
            break
    if not found:
        raise ConfigError(f"{path}: no frame is in it")
    return found[:MOST_FRAMES]


def write_frames(path: Path, frames: Iterable[HeardFrame]) -> None:
    """Frames as recorded input."""
    with path.open("w", encoding="utf-8") as file:
        for frame in frames:
            address = frame.address
            line: dict[str, Any] = {
                "ingest_ts": frame.ingest_ms,
                "source": address.source,
                "topic": address.topic,
            }
            if address.port >= 0:
                line["port"] = address.port
            if address.headers:
                line["headers"] = list(address.headers)  # a name may stand twice
            try:
                line["payload"] = frame.payload.decode()
            except UnicodeDecodeError:
                line["payload_hex"] = frame.payload.hex()
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
