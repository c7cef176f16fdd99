"""Frames as a device of a product would send them: JSON by the paths of its `decode:`, binary by
its fixed layout. The other direction of decoding, for plain layouts only."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from connectors.errors import ConfigError
from connectors.typed import TypedValue, pack
from flows.plant_file import Product
from flows.simulated_values import Value
from operators.decode.typed_spec import TypedSpec

_TYPE = re.compile(r"(?P<kind>u|s|sm|f)(?P<width>8|16|24|32|40|48|56|64)(?P<swapped>ws)?(?P<order>le|be)?$")
_FLOATS: Final = {16: "e", 32: "f", 64: "d"}
_CRC_BITS: Final = {"crc8": 8, "crc16": 16, "crc32": 32}
_SUM_BYTES: Final = {"sum8": 1, "xor8": 1, "sum16": 2}
_UNIT_MS: Final = {"ms": 1.0, "s": 1e-3, "us": 1e3, "ns": 1e6, "min": 1 / 60_000, "h": 1 / 3_600_000}


class Encoder(Protocol):
    """A product's frames."""

    def encode(self, values: Mapping[str, Value], now_ms: int) -> bytes:
        """One frame with these values, taken at `now_ms`."""


def encoder(product: Product) -> Encoder:
    """Raises `ConfigError` for a decode section that is not simulated, naming what is in its way."""
    spec = product.decode
    try:
        if spec.format == "json":
            return JsonEncoder(spec.plain)
        if spec.format == "binary":
            if spec.encoding != "raw":
                raise _NotPlain(f"its encoding is {spec.encoding}")
            return BinaryEncoder(spec.plain)
        if spec.format == "typed":
            return TypedEncoder(spec.layout)
    except _NotPlain as error:
        raise ConfigError(f"product {product.productId} is not simulated: {error}") from error
    raise ConfigError(f"product {product.productId} is not simulated: its format is {spec.format}")


class _NotPlain(Exception):
    """A construct that the simulator does not send."""


class JsonEncoder:
    """The standard payload, or one whose paths the product names."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        if "rows" in plain:
            raise _NotPlain("it decodes rows")
        self._binary = BinaryEncoder(plain) if "binary" in plain else None
        self._binary_path = _steps(plain["binary"]) if "binary" in plain else []
        metrics = plain.get("metrics", "data.metrics")
        self._object = _steps(metrics) if isinstance(metrics, str) else None
        self._named = (
            {name: _steps(_path(path)) for name, path in metrics.items()} if self._object is None else {}
        )
        self._times = [
            (_steps(_path(plain.get(key, default))), _unit(plain.get(key)))
            for key, default in (("timestamp", "device_timestamp"), ("hub_timestamp", "hub_timestamp"))
        ]

    def encode(self, values: Mapping[str, Value], now_ms: int) -> bytes:
        body: dict[str, Any] = {}
        for steps, unit in reversed(self._times):
            _put(body, steps, int(now_ms * _UNIT_MS[unit]))
        if self._binary is not None:
            _put(body, self._binary_path, self._binary.encode(values, now_ms).hex().upper())
        elif self._object is not None:
            _put(body, self._object, dict(values))
        else:
            for name, steps in self._named.items():
                _put(body, steps, values.get(name))
        return msgspec.json.encode(body)


class TypedEncoder:
    """A typed frame, by the names at the source."""

    def __init__(self, layout: TypedSpec) -> None:
        self._names = dict(layout.metrics) if layout.metrics is not None else None

    def encode(self, values: Mapping[str, Value], now_ms: int) -> bytes:
        return pack(TypedValue(name, value, now_ms * 1_000_000) for name, value in self.named(values))

    def named(self, values: Mapping[str, Value]) -> list[tuple[str, Value]]:
        """The values that the layout reads, by their names at the source."""
        if self._names is None:
            return list(values.items())
        return [(self._names[name], value) for name, value in values.items() if name in self._names]


class BinaryEncoder:
    """A layout of fields at fixed places, with checks: the top level and its first case."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        fragments = [plain]
        if plain.get("cases"):
            fragments.append(plain["cases"][0])
        self._little = plain.get("order", "be") == "le"
        self._constants: dict[int, int] = {}
        self._fields: list[_Field] = []
        self._time: Mapping[str, Any] | None = None
        length = 0
        for fragment in fragments:
            for name in ("tlv", "sections", "record", "bits", "use"):
                if name in fragment:
                    raise _NotPlain(f"its layout has {name}")
            when = fragment.get("when") or {}
            self._constants.update({int(at): _first(test) for at, test in (when.get("byte") or {}).items()})
            length = max(length, _first(when.get("length", 0)))
            self._time = fragment.get("time", self._time)
            cursor = 0
            for name, field in (fragment.get("fields") or {}).items():
                one = _Field(name, field, cursor, self._little)
                cursor = one.end
                self._fields.append(one)
        self._checks = [
            check
            for fragment in fragments
            for check in (fragment.get("check") or {}).items()
            if check[0] != "on_fail"
        ]
        ends = [field.end for field in self._fields] + [at + 1 for at in self._constants]
        if self._time is not None:
            ends.append(int(self._time["at"]) + _width(self._time["as"], "time"))
        before = [-field.at for field in self._fields if field.at < 0]
        before += [-int(check["at"]) for _, check in self._checks if int(check["at"]) < 0]
        self.length = max(length, max((end for end in ends if end > 0), default=0) + max(before, default=0))

    def encode(self, values: Mapping[str, Value], now_ms: int) -> bytes:
        frame = bytearray(self.length)
        for at, byte in self._constants.items():
            frame[at] = byte
        for field in self._fields:
            field.write(frame, values.get(field.name, 0))
        if self._time is not None:
            _write_time(frame, self._time, now_ms, self._little)
        for kind, check in self._checks:
            _write_check(frame, kind, check, self._little)
        return bytes(frame)


class _Field:
    """One field: where it stands and how a value becomes its raw number."""

    def __init__(self, name: str, spec: Mapping[str, Any], cursor: int, little: bool) -> None:
        self.name, self._spec, self._little = name, spec, little
        for key in ("pieces", "text", "if", "key", "optional"):
            if key in spec:
                raise _NotPlain(f"field {name} has {key}")
        at = spec.get("at", cursor)
        if at == "same" or not isinstance(at, int):
            raise _NotPlain(f"field {name} stands at {at!r}")
        self.at = at
        self._kind = str(spec.get("as", "u8"))
        self._kind = "u8" if self._kind in ("bool", "int") else self._kind
        self.width = _width(self._kind, name)
        self.end = at + self.width if at >= 0 else 0
        scale = spec.get("scale", 1)
        top, _, bottom = str(scale).partition("/")
        self._scale = float(top) / float(bottom or 1)
        self._offset = float(spec.get("offset", 0))

    def write(self, frame: bytearray, value: Value) -> None:
        start = self.at if self.at >= 0 else len(frame) + self.at
        raw = self._raw(value)
        if "bit" in self._spec:
            self._write_bits(frame, start, int(self._spec["bit"]), int(self._spec["bit"]), int(bool(raw)))
        elif "bits" in self._spec:
            high, low = (int(part) for part in str(self._spec["bits"]).split(".."))
            self._write_bits(frame, start, max(high, low), min(high, low), int(raw))
        else:
            frame[start : start + self.width] = _pack(self._kind, raw, self._little)

    def _raw(self, value: Value) -> float:
        mapping = self._spec.get("map")
        if mapping:
            codes = {str(text): code for code, text in mapping.items() if code != "else"}
            return int(str(codes.get(str(value), next(iter(codes.values())))), 0)
        if isinstance(value, str):
            return 0
        raw = (float(value) - self._offset) / self._scale
        if "valid" in self._spec:
            low, high = self._spec["valid"]
            raw = min(max(raw, low), high)
        return raw

    def _write_bits(self, frame: bytearray, start: int, high: int, low: int, raw: int) -> None:
        order = _order(self._kind, self._little)
        container = int.from_bytes(frame[start : start + self.width], order)  # type: ignore[arg-type]  # big or little
        mask = (1 << (high - low + 1)) - 1
        container = container & ~(mask << low) | (raw & mask) << low
        frame[start : start + self.width] = container.to_bytes(self.width, order)  # type: ignore[arg-type]  # as above


def _pack(kind: str, raw: float, little: bool) -> bytes:
    found = _TYPE.match(kind)
    assert found is not None
    bits, order = int(found["width"]), _order(kind, little)
    if found["kind"] == "f":
        body = struct.pack((">" if order == "big" else "<") + _FLOATS[bits], raw)
    else:
        number = round(raw)
        low, high = (
            (0, (1 << bits) - 1) if found["kind"] == "u" else (1 - (1 << bits - 1), (1 << bits - 1) - 1)
        )
        number = min(max(number, low), high)
        if found["kind"] == "sm" and number < 0:
            number = -number | 1 << bits - 1
        body = (number & (1 << bits) - 1).to_bytes(bits // 8, order)  # type: ignore[arg-type]  # big or little
    if found["swapped"]:
        body = b"".join(body[at : at + 2] for at in range(len(body) - 2, -2, -2))
    return body


def _width(kind: str, name: str) -> int:
    found = _TYPE.match(kind)
    if found is None or (found["kind"] == "f" and int(found["width"]) not in _FLOATS):
        raise _NotPlain(f"field {name} is {kind}")
    return int(found["width"]) // 8


def _order(kind: str, little: bool) -> str:
    return "little" if kind.endswith("le") or (little and not kind.endswith("be")) else "big"


def _write_time(frame: bytearray, time: Mapping[str, Any], now_ms: int, little: bool) -> None:
    if time.get("epoch", 1970) != 1970 or "relative" in time or "ago" in time:
        raise _NotPlain("its time is not counted from 1970")
    at = int(time["at"])
    start = at if at >= 0 else len(frame) + at
    kind = str(time["as"])
    body = _pack(kind, int(now_ms * _UNIT_MS[time.get("unit", "s")]), little)
    frame[start : start + len(body)] = body


def _write_check(frame: bytearray, kind: str, check: Mapping[str, Any], little: bool) -> None:
    at = int(check["at"])
    at = at if at >= 0 else len(frame) + at
    low, high = 0, at - 1
    if "over" in check:
        first, _, last = str(check["over"]).partition("..")
        low = int(first) if first else 0
        high = int(last) if last else len(frame) - 1
        low, high = (low if low >= 0 else len(frame) + low), (high if high >= 0 else len(frame) + high)
    body = bytes(frame[low : high + 1])
    size = _CRC_BITS[kind] // 8 if kind in _CRC_BITS else _SUM_BYTES.get(kind, 0)
    if not size:
        raise _NotPlain(f"its check is {kind}")
    value = _crc(body, _CRC_BITS[kind], check) if kind in _CRC_BITS else _sum(body, kind, check)
    order = str(check.get("order", "le" if little else "be"))
    frame[at : at + size] = value.to_bytes(size, "little" if order == "le" else "big")


def _crc(body: bytes, bits: int, check: Mapping[str, Any]) -> int:
    """Ross Williams' parametrised CRC, bit by bit; poly in normal form, reflect = in and out."""
    poly, value, mask = int(check["poly"]), int(check.get("init", 0)), (1 << bits) - 1
    reflect = bool(check.get("reflect"))
    for byte in body:
        value ^= (_reflected(byte, 8) if reflect else byte) << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ poly if value >> (bits - 1) & 1 else value << 1) & mask
    return (_reflected(value, bits) if reflect else value) ^ int(check.get("xor", 0))


def _sum(body: bytes, kind: str, check: Mapping[str, Any]) -> int:
    value = int(check.get("init", 0))
    for byte in body:
        value = value ^ byte if kind == "xor8" else value + byte
    return (value ^ int(check.get("xor", 0))) & (0xFFFF if kind == "sum16" else 0xFF)


def _reflected(value: int, bits: int) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2)


def _first(test: Any) -> int:
    """One value that a test of `when` accepts."""
    one = test[0] if isinstance(test, list) else test
    return int(str(one).partition("..")[0] or "0", 0)


def _path(spec: Any) -> str:
    return str(spec.get("path")) if isinstance(spec, Mapping) else str(spec)


def _unit(spec: Any) -> str:
    unit = spec.get("unit", "ms") if isinstance(spec, Mapping) else "ms"
    return "ms" if unit == "auto" else str(unit)


def _steps(path: str) -> list[str | int]:
    """`data.t[0].v` -> ["data", "t", 0, "v"]"""
    found = re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)
    return [str(name) if name else int(index) for name, index in found]


def _put(body: Any, steps: list[str | int], value: Any) -> None:
    """Set the member at a path, making the objects and lists on the way."""
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        make: Callable[[], Any] = list if isinstance(following, int) else dict
        fresh = value if following is None else make()
        if isinstance(step, int):
            while len(body) <= step:
                body.append(None)
            if following is None or body[step] is None:
                body[step] = fresh
        elif following is None or step not in body:
            body[step] = fresh
        body = body[step]
