"""Question: how many of the project's JSON messages become columns in a second, on one core?

Input: 16,384 messages of about 154 bytes with both timestamps and five metrics (four numbers as
their doubles print, one text), of 1,000 devices; the same again with numbers of 17 digits, which
take the slower exact way. Peers in the same run: msgspec with a typed struct, and Python's json,
both filling the same arrays row by row. `stage` is the whole decode stage: routing by address,
frame checks, ledger, columns. Best of the rounds, caches warm.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from operators.batch import Address, FrameBatch, Slice, Ticks
from operators.decode.json_decoder import JsonDecoder
from operators.decode.json_spec import JsonSpec
from operators.decode.spec import (
    DecodePlan,
    DecodeSpec,
    MasterDevice,
    ProductDecode,
    RoutingSpec,
    SourceSpec,
)
from operators.decode.step import DecodeLogic
from operators.devices import Devices

MESSAGES: Final = 16_384
DEVICES: Final = 1_000
ROUNDS: Final = 9
FLOOR: Final = 3e6
METRICS: Final = (
    ("tempC", "number"),
    ("rpm", "integer"),
    ("vibration", "number"),
    ("pressure", "number"),
    ("mode", "string"),
)


class _Metrics(msgspec.Struct):
    tempC: float | None = None
    rpm: float | None = None
    vibration: float | None = None
    pressure: float | None = None
    mode: str | None = None


class _Data(msgspec.Struct):
    metrics: _Metrics


class _Message(msgspec.Struct):
    device_timestamp: int
    hub_timestamp: int
    data: _Data


def run() -> dict[str, Any]:
    """Measure; messages and bytes a second."""
    short, long = _messages(digits=2), _messages(digits=None)
    frames = _batch(short)
    decoder = JsonDecoder(JsonSpec(), METRICS)
    rows = np.arange(MESSAGES, dtype=np.int64)
    params = np.empty((0, MESSAGES))
    columns = _best(lambda: decoder.decode(frames, rows, params))
    long_frames = _batch(long)
    exact = _best(lambda: decoder.decode(long_frames, rows, params))
    logic = DecodeLogic(_plan(), Devices())
    stage = _best(lambda: logic.process(Slice(1, MESSAGES, frames)))
    size = len(frames.payload) / MESSAGES
    by_msgspec = _best(lambda: _with_msgspec(short), 3)
    by_json = _best(lambda: _with_json(short), 3)
    return {
        "bytes_a_message": round(size, 1),
        "columns_messages_per_s": MESSAGES / columns,
        "columns_mb_per_s": MESSAGES * size / columns / 1e6,
        "floor_messages_per_s": FLOOR,
        "columns_17_digits_messages_per_s": MESSAGES / exact,
        "stage_messages_per_s": MESSAGES / stage,
        "msgspec_messages_per_s": MESSAGES / by_msgspec,
        "json_messages_per_s": MESSAGES / by_json,
        "ratio_to_msgspec": by_msgspec / columns,
    }


def _messages(digits: int | None) -> list[bytes]:
    chance = random.Random(7)

    def number(low: float, high: float) -> float:
        value = chance.uniform(low, high)
        return value if digits is None else round(value, digits)

    found = []
    for n in range(MESSAGES):
        metrics = {
            "tempC": number(20, 90),
            "rpm": chance.randrange(6000),
            "vibration": number(0, 9),
            "pressure": number(1, 9),
            "mode": chance.choice(["run", "idle", "fault"]),
        }
        at = 1_772_355_600_000 + n
        body = {"hub_timestamp": at + 3, "device_timestamp": at, "data": {"metrics": metrics}}
        found.append(json.dumps(body, separators=(",", ":")).encode())
    return found


def _batch(payloads: list[bytes]) -> FrameBatch:
    length = np.array([len(payload) for payload in payloads], np.int64)
    return FrameBatch(
        payload=np.frombuffer(b"".join(payloads), np.uint8).copy(),
        offset=np.cumsum(length) - length,
        length=length,
        address=np.arange(MESSAGES, dtype=np.int32) % DEVICES,
        addresses=tuple(
            Address("line1", f"iotlink/dev/nohub/press-{n:04d}/periodic/pub/telemetry/json")
            for n in range(DEVICES)
        ),
        ingest_ns=np.full(MESSAGES, 1_772_355_601_000_000_000, np.int64),
        position=np.arange(MESSAGES, dtype=np.int64),
        flags=np.zeros(MESSAGES, np.uint8),
        ticks=Ticks.none(),
    )


def _plan() -> DecodePlan:
    spec = DecodeSpec(format="json", plain={"format": "json"}, layout=JsonSpec())
    product = ProductDecode("press", spec, METRICS, ("iotlink/+/+/+/+/pub/telemetry/json",))
    devices = {f"press-{n:04d}": MasterDevice("press") for n in range(DEVICES)}
    return DecodePlan({"press": product}, RoutingSpec((SourceSpec("line1"),), devices))


def _with_msgspec(payloads: list[bytes]) -> Any:
    decoder = msgspec.json.Decoder(_Message)
    times, values = np.empty(len(payloads), np.int64), np.empty((4, len(payloads)))
    modes: list[str | None] = []
    for row, payload in enumerate(payloads):
        message = decoder.decode(payload)
        metrics = message.data.metrics
        times[row] = message.device_timestamp * 1_000_000
        values[0, row], values[1, row] = metrics.tempC, metrics.rpm
        values[2, row], values[3, row] = metrics.vibration, metrics.pressure
        modes.append(metrics.mode)
    return times, values, modes


def _with_json(payloads: list[bytes]) -> Any:
    times, values = np.empty(len(payloads), np.int64), np.empty((4, len(payloads)))
    modes: list[str | None] = []
    for row, payload in enumerate(payloads):
        message = json.loads(payload)
        metrics = message["data"]["metrics"]
        times[row] = message["device_timestamp"] * 1_000_000
        for column, name in enumerate(("tempC", "rpm", "vibration", "pressure")):
            values[column, row] = metrics[name]
        modes.append(metrics["mode"])
    return times, values, modes


def _best(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    work()
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
