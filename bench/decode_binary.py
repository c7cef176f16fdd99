"""Question: how many binary frames a second become columns on one core, by the column kernels and by the
interpreting kernel, and what does Python's `struct` with a table-driven CRC make of the same frames?

Input: the 27-byte frame of examples/press-line's hydraulic unit (CRC-16/MODBUS, a time, nine fields),
100,000 frames with random values. Best of five. Floor: 20 M frames/s by the column kernels.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flows import specs
from flows.plant_reader import load_plant, read_folder
from operators.batch import Address, FrameBatch, Ticks
from operators.decode.binary_decoder import BinaryDecoder

FRAMES = 100_000
PLAIN_FRAMES = 10_000
ROUNDS = 5
FLOOR = 20e6
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "press-line"
LAYOUT = struct.Struct(">BQHhBHIHHB")


def run() -> dict[str, Any]:
    """Measure each way."""
    plant, problems = load_plant(read_folder(EXAMPLE), {}, name_hint="press-line")
    if plant is None:
        raise ValueError(problems.render())
    product = specs.decode(plant).products["hydraulic-v1"]
    table = crc_table()
    raw = frames(table)
    batch = as_batch(raw)
    rows = np.arange(len(batch), dtype=np.int64)
    found: dict[str, Any] = {"bytes_a_frame": len(raw[0])}
    for name, columns in (("columns", True), ("interpreter", False)):
        decoder = BinaryDecoder(product.decode.layout, product.metrics, columns=columns)
        params = np.full((len(decoder.param_names), len(batch)), np.nan)
        decoded = decoder.decode(batch, rows, params)
        if decoded.status.any() or len(decoded.frame) != FRAMES:
            raise ValueError("a frame of the benchmark was refused")
        seconds = best(lambda d=decoder, p=params: d.decode(batch, rows, p))  # type: ignore[misc]
        found[f"{name}_frames_s"] = FRAMES / seconds
    seconds = best(lambda: [plain(frame, table) for frame in raw[:PLAIN_FRAMES]])
    found["struct_frames_s"] = PLAIN_FRAMES / seconds
    found["ratio_to_struct"] = found["columns_frames_s"] / found["struct_frames_s"]
    found["floor_frames_s"] = FLOOR
    return found


def best(action: Callable[[], Any]) -> float:
    """The shortest of ROUNDS runs, in seconds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        took.append(time.perf_counter() - began)
    return min(took)


def crc_table() -> list[int]:
    """CRC-16/MODBUS by bytes (Modbus over serial line V1.02, section 6.2.2)."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return table


def crc16(body: bytes, table: list[int]) -> int:
    """The check of one frame."""
    crc = 0xFFFF
    for byte in body:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc


def frames(table: list[int]) -> list[bytes]:
    """Frames with random values within the product's ranges."""
    draw = np.random.default_rng(1)
    start = 1_772_355_600_000
    values = zip(
        draw.integers(0, 4000, FRAMES).tolist(),
        draw.integers(-200, 1200, FRAMES).tolist(),
        draw.integers(0, 100, FRAMES).tolist(),
        draw.integers(0, 4, FRAMES).tolist(),
        draw.integers(0, 1 << 31, FRAMES).tolist(),
        draw.integers(0, 65_000, FRAMES).tolist(),
        draw.integers(0, 65_000, FRAMES).tolist(),
        strict=True,
    )
    made = []
    for number, (pressure, oil, level, bits, hours, current, flow) in enumerate(values):
        body = LAYOUT.pack(0x48, start + number, pressure, oil, level, bits, hours, current, flow, 7)
        made.append(body + crc16(body, table).to_bytes(2, "little"))
    return made


def as_batch(raw: list[bytes]) -> FrameBatch:
    """The frames as the journal's reader hands them over."""
    length = np.full(len(raw), len(raw[0]), np.int64)
    return FrameBatch(
        payload=np.frombuffer(bytearray().join(raw), np.uint8),
        offset=np.cumsum(length) - length,
        length=length,
        address=np.zeros(len(raw), np.int32),
        addresses=(Address("hydraulics", "127.0.0.11"),),
        ingest_ns=np.full(len(raw), 1_772_355_700_000_000_000, np.int64),
        position=np.arange(len(raw), dtype=np.int64),
        flags=np.zeros(len(raw), np.uint8),
        ticks=Ticks.none(),
    )


def plain(frame: bytes, table: list[int]) -> dict[str, Any] | None:
    """The same frame by `struct`, a frame at a time."""
    if frame[0] != 0x48 or crc16(frame[:-2], table) != int.from_bytes(frame[-2:], "little"):
        return None
    _, at, pressure, oil, level, bits, hours, current, flow, firmware = LAYOUT.unpack(frame[:-2])
    return {
        "time": at,
        "pressure": pressure / 10,
        "oilTempC": oil / 10,
        "level": level,
        "pumpOn": bool(bits & 1),
        "filterClogged": bool(bits & 2),
        "hours": hours / 10,
        "current": current / 100,
        "flow": flow / 10,
        "firmware": firmware,
    }
