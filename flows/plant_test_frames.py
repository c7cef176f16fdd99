"""The frames of a plant test as recorded input: readings become what their devices would send."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cbor2
import msgspec

from connectors.errors import ConfigError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig
from flows.plant_file import Plant, Product, SourceConfig
from flows.plant_tests import CaseFrame, CaseReading, PlantTest, parse_time, start_of
from flows.simulate import device_topic
from flows.simulated_frames import encoder
from flows.simulated_kafka import kafka_place
from operators.decode.json_spec import JsonSpec, parse_path
from operators.decode.json_spec import Path as JsonPath

SECOND_MS = 1000


def recording_of(plant: Plant, test: PlantTest, folder: Path) -> list[Path] | list[dict[str, Any]]:
    """Recorded input of a test: its file, or its lines. folder: the plant's. Raises `ConfigError`
    for what cannot be sent."""
    case = test.case
    if case.file is not None:
        path = (folder / "tests" / case.file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise ConfigError(f"{test.path}: no file tests/{case.file} in the plant")
        return [path]
    start = start_of(case) or 0
    frames = [_reading_line(plant, one, start) for one in case.readings or ()]
    frames += [_frame_line(plant, one, start) for one in case.frames or ()]
    until = None if case.until is None else parse_time(case.until, start)
    return frames if until is None else list(_with_ticks(frames, until))


def _reading_line(plant: Plant, reading: CaseReading, start: int) -> dict[str, Any]:
    row = plant.master.devices[reading.device]
    product = plant.products[row["productId"]]
    at = parse_time(reading.at, start) or 0
    received = at if reading.received is None else parse_time(reading.received, start) or 0
    name, source = _source_of(plant, product)
    line = {"ingest_ts": received, "source": name, **_address(source, product, reading.device, row)}
    payload = _payload(product, reading.metrics, at)
    if source.device.startswith("payload:"):
        path = parse_path(source.device.removeprefix("payload:"))
        body = _UNPACK[product.decode.format](payload)
        if not isinstance(path, str):
            _put(body, path, reading.device)
        payload = _PACK[product.decode.format](body)
    return {**line, "payload_hex": payload.hex()}


def _source_of(plant: Plant, product: Product) -> tuple[str, SourceConfig]:
    """The source that brings a product: one that names it, else the first that names none."""
    open_ones = [(name, one) for name, one in plant.sources.items() if one.product is None]
    naming = [(name, one) for name, one in plant.sources.items() if one.product == product.productId]
    for name, source in [*naming, *open_ones]:
        if not isinstance(source, FilesConfig):
            return name, source
    raise ConfigError(f"no source brings frames of {product.productId}; write 'frames' or 'file'")


def _address(source: SourceConfig, product: Product, device: str, row: Mapping[str, str]) -> dict[str, Any]:
    """Where a device's frame comes from, so that the source knows the device."""
    kind, _, rest = source.device.partition(":")
    if kind == "peer":
        host, colon, _ = device.rpartition(":")
        peer = device if colon else f"{device}:0"
        return {"topic": host if colon else device, "headers": {"peer": peer}}
    if isinstance(source, KafkaConfig):
        return _kafka_address(source, product, device, row.get("hub_id") or "")
    headers = {rest: device} if kind == "header" else {}
    if isinstance(source, MqttConfig | HttpConfig):
        topic = device_topic(source, product, device, row.get("hub_id") or "")
    else:
        topic = (source.topic or "{device_id}").replace("{device_id}", device)
    return {"topic": topic, "headers": headers} if headers else {"topic": topic}


def _kafka_address(source: KafkaConfig, product: Product, device: str, hub: str) -> dict[str, Any]:
    topic, key, headers = kafka_place(source, product, device, hub)
    where, _, header = source.address.partition(":")
    address = {"key": key, "header": headers.get(header)}.get(where) or topic
    told = {**({"key": key} if key is not None else {}), **headers}
    return {"topic": address, "headers": told} if told else {"topic": address}


def _payload(product: Product, metrics: Mapping[str, Any], at_ms: int) -> bytes:
    layout = product.decode.layout
    if isinstance(layout, JsonSpec) and layout.rows is not None:
        raise ConfigError(f"readings of {product.productId} stand in rows; write 'frames'")
    if isinstance(layout, JsonSpec) and layout.binary is None:
        return _json(product, layout, metrics, at_ms)
    if product.decode.format != "typed" and any(value is None for value in metrics.values()):
        raise ConfigError(f"a null cannot be sent in the format of {product.productId}; write 'frames'")
    return encoder(product).encode(metrics, at_ms)


def _json(product: Product, layout: JsonSpec, metrics: Mapping[str, Any], at_ms: int) -> bytes:
    body: dict[str, Any] = {}
    if layout.timestamp is not None:
        unit = layout.timestamp.unit
        scaled: float = at_ms * {"ms": 1, "auto": 1, "us": 1000, "ns": 1_000_000}.get(unit, 1)
        if unit == "s":
            scaled = at_ms // SECOND_MS if at_ms % SECOND_MS == 0 else at_ms / SECOND_MS
        _put(body, layout.timestamp.path, scaled)
    paths = dict(layout.fields)
    for name, value in metrics.items():
        if name in paths:
            _put(body, paths[name], value)
        elif layout.container is not None:
            _put(body, (*layout.container, name), value)
        else:
            raise ConfigError(f"'{name}' of {product.productId} is derived; write 'frames'")
    if layout.container is not None and not metrics:
        _put(body, layout.container, {})
    return _PACK[product.decode.format](body)


_PACK: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "json": lambda body: json.dumps(body, ensure_ascii=False).encode(),
    "msgpack": msgspec.msgpack.encode,
    "cbor": cbor2.dumps,
}
_UNPACK: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "json": json.loads,
    "msgpack": msgspec.msgpack.decode,
    "cbor": cbor2.loads,
}


def _put(body: Any, path: JsonPath, value: Any) -> None:
    """Set the member at a path, making the objects and lists on the way."""
    for number, part in enumerate(path):
        last = number == len(path) - 1
        fresh: Any = value if last else ([] if isinstance(path[number + 1], int) else {})
        if isinstance(part, int):
            body.extend([None] * (part + 1 - len(body)))
            if last or body[part] is None:
                body[part] = fresh
        elif last or part not in body:
            body[part] = fresh
        body = body[part]


def _frame_line(plant: Plant, frame: CaseFrame, start: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "ingest_ts": parse_time(frame.at, start) or 0,
        "source": frame.source if frame.source is not None else next(iter(plant.sources)),
        "topic": frame.topic,
    }
    if frame.port >= 0:
        line["port"] = frame.port
    if frame.headers:
        line["headers"] = frame.headers
    if frame.hex is not None:
        return {**line, "payload_hex": frame.hex.replace(" ", "")}
    text = frame.text if frame.text is not None else json.dumps(frame.json, ensure_ascii=False)
    return {**line, "payload": text}


def _with_ticks(frames: list[dict[str, Any]], until: int) -> Iterator[dict[str, Any]]:
    """The ticks that `replay` would put in by itself (the last of several in a row stands for
    all), and then the clock goes on to `until`."""
    clock = frames[0]["ingest_ts"] - 1 if frames else until
    for frame in [*frames, None]:
        now = until if frame is None else max(clock, frame["ingest_ts"])
        if now // SECOND_MS > clock // SECOND_MS:
            yield {"tick": now // SECOND_MS * SECOND_MS}
        clock = now
        if frame is not None:
            yield frame
