"""Writes journal entries as recorded input, such that a replay gives what the live path gave."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Protocol

import msgspec

from connectors.journal.entries import FRAMES, TICK, Entry
from connectors.journal.merging import Merger
from operators.batch import (
    FRAME_HISTORICAL,
    FRAME_NUMBERED,
    FRAME_QUARANTINED,
    FRAME_RETAINED,
    Address,
    Control,
    FrameBatch,
)


class Controls(Protocol):
    """Who knows the whole of a control: the journal's reader."""

    def control(self, entry: Entry) -> Control: ...


class RecordingWriter:
    """Journal entries as lines of a recording, the head of the capture first.

    A payload that is UTF-8 is written as `payload`, any other as `payload_hex`; a retained or
    historical frame says so (`"retained": true`, `"historical": true`), one of a file its `line`.
    """

    def __init__(self, file: BinaryIO, reader: Controls) -> None:
        self._file = file
        self._reader = reader
        self._merger = Merger()
        self._begun = False
        self._encoder = msgspec.json.Encoder()

    def write(self, entries: Sequence[Entry]) -> int:
        """Append consecutive entries; returns how many frames were among them. Raises OSError."""
        frames = 0
        for entry in entries:
            if not self._begun:
                self._lines([{"capture": 1, "position": entry.position}])
                self._begun = True
            if entry.kind == FRAMES:
                batch = self._merger.merge([entry])
                self._lines(_frame_lines(batch))
                frames += len(batch)
            elif entry.kind == TICK:
                self._lines([{"tick": entry.ms}])
            else:
                self._lines([_control_line(self._reader.control(entry), entry.ms)])
        return frames

    def close(self) -> None:
        """Nothing is held back; the file stays the caller's."""
        self._file.flush()

    def _lines(self, lines: Iterable[dict[str, Any]]) -> None:
        self._file.write(self._encoder.encode_lines(lines))


def _frame_lines(batch: FrameBatch) -> list[dict[str, Any]]:
    payload = batch.payload.tobytes()
    heads = [_address_keys(address) for address in batch.addresses]
    lines: list[dict[str, Any]] = []
    for start, size, where, ns, flags in zip(
        batch.offset.tolist(),
        batch.length.tolist(),
        batch.address.tolist(),
        batch.ingest_ns.tolist(),
        batch.flags.tolist(),
        strict=True,
    ):
        line: dict[str, Any] = {"ingest_ts": ns // 1_000_000, **heads[where]}
        data = payload[start : start + size]
        try:
            line["payload"] = data.decode()
        except UnicodeDecodeError:
            line["payload_hex"] = data.hex()
        if flags & FRAME_RETAINED:
            line["retained"] = True
        if flags & FRAME_HISTORICAL:
            line["historical"] = True
        if flags & FRAME_QUARANTINED:
            line["quarantined"] = True
        if flags & FRAME_NUMBERED:
            line["line"] = batch.line(len(lines))
        lines.append(line)
    return lines


def _address_keys(address: Address) -> dict[str, Any]:
    keys: dict[str, Any] = {"source": address.source, "topic": address.topic}
    if address.port != -1:
        keys["port"] = address.port
    if address.headers:
        names = dict(address.headers)
        # a name that stands twice needs pairs
        keys["headers"] = names if len(names) == len(address.headers) else list(address.headers)
    return keys


def _control_line(control: Control, ms: int) -> dict[str, Any]:
    data = control.data
    if control.kind in ("connected", "disconnected"):
        return {control.kind: data["source"], "at": ms}
    if control.kind == "clock_step":
        return {"clock_step": data["step_ms"], "at": ms}
    if control.kind == "plant":
        files = {path: base64.b64encode(content).decode() for path, content in data["files"].items()}
        about = {key: data[key] for key in ("apply_id", "by", "why") if key in data}
        return {"plant": data["sha256"], "files": files, **about, "at": ms}
    if control.kind == "action":
        return {"action": dict(data), "at": ms}
    return {control.kind: dict(data) or True, "at": ms}
