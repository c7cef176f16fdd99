"""The record of one device and product in the state store: written by the output log, read by the server.

Key: the device_id in UTF-8 and an id of the product, for one device may send frames of several. A record
is made for every device that changed, twice a second, so it is bytes cut out of columns:

    standing u8 | id of its layout, 8 bytes | numbers | tail
    tail    = MessagePack [device_id, ruleIds of active alarms, flags], or `NO_ALARMS`
    numbers = value f64[M] | time i64[M] | position i64[M] |
              aggregate f64[A] | start i64[A] | revision i64[A] | quality u8[M]

standing: OWN, of the product that master data give the device, or that it was first heard as; ALSO, of
another that it sends too; FORMER, of one that master data moved it away from and that it has not sent
since. The layout (`Layout`: which M metrics and A aggregates) is kept once, beside the records, and so is
every text that a text metric's value stands for (`operators.text.text_code`).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from operators.batch import ABSENT, QUALITY_NAMES

Value = float | int | bool | str | None

OWN: Final = 2  # records of versions that knew one product a device are its own
ALSO: Final = 3
FORMER: Final = 4
LAYOUT_ID: Final = 8
PRODUCT_ID: Final = 8
NO_ALARMS: Final = b"\xc0"
"""The tail of a device with no open alarm is its name between two of these, which no UTF-8 holds."""
FORMULA: Final = "formula"  # the window under which values of formulas stand
NO_WINDOW: Final = -(1 << 63)  # start of a window that has not closed yet
_HEAD: Final = struct.Struct(f"<B{LAYOUT_ID}s")
_STANDINGS: Final = frozenset((OWN, ALSO, FORMER))


class MetricState(msgspec.Struct, array_like=True, frozen=True):
    """The newest in-order reading that carried a metric. value: None = null or unknown."""

    value: Value
    quality: int  # GOOD, UNCERTAIN or BAD of operators.batch
    time_ns: int
    position: int

    @property
    def quality_name(self) -> str:
        return QUALITY_NAMES[self.quality]


class WindowState(msgspec.Struct, array_like=True, frozen=True):
    """One aggregate of one metric in the last closed window."""

    value: float | None
    start_ns: int
    revision: int


class DeviceState(msgspec.Struct, frozen=True):
    """What is known of one device as of one product.

    windows: window -> metric -> aggregate, of the windows that the product's `aas:` refers to; a
    formula is FORMULA -> formulaId -> what it is over, its value with the time of the reading (or the
    start of the window) that it is of. alarms: ruleIds whose alarm is active, sorted. flags: ruleId ->
    bits of `references.FLAGS`, of alarms that are open. standing: what the product is to the device.
    """

    device_id: str
    productId: str
    metrics: dict[str, MetricState]
    windows: dict[str, dict[str, dict[str, WindowState]]]
    alarms: list[str]
    flags: dict[str, int] = msgspec.field(default_factory=dict)
    standing: int = OWN


class Heard(NamedTuple):
    """A device that has been heard as a product."""

    device_id: str
    productId: str
    standing: int


class _Tail(msgspec.Struct, array_like=True, frozen=True):
    """How a record ends."""

    device_id: str
    alarms: list[str]
    flags: dict[str, int] = msgspec.field(default_factory=dict)


class Layout(msgspec.Struct, array_like=True, frozen=True):
    """What the numbers of a product's records are. metrics: (name, type) in file order;
    aggregates: (window, aggregate, metric)."""

    productId: str
    metrics: tuple[tuple[str, str], ...]
    aggregates: tuple[tuple[str, str, str], ...]

    def encoded(self) -> bytes:
        """As it is kept."""
        return msgspec.msgpack.encode(self)

    def id(self) -> bytes:
        """LAYOUT_ID bytes that stand for it in records."""
        return hashlib.blake2b(self.encoded(), digest_size=LAYOUT_ID).digest()

    def numbers(self) -> np.dtype[np.void]:
        """The numbers of one record."""
        metrics, aggregates = (len(self.metrics),), (len(self.aggregates),)
        return np.dtype(
            [
                ("latest", "<f8", metrics),
                ("time", "<i8", metrics),
                ("position", "<i8", metrics),
                ("kept", "<f8", aggregates),
                ("kept_start", "<i8", aggregates),
                ("kept_revision", "<i8", aggregates),
                ("quality", "u1", metrics),
            ]
        )


def device_key(device_id: str) -> bytes:
    """The first part of the key of a device's records."""
    return device_id.encode("utf-8", "surrogatepass")


def product_key(productId: str) -> bytes:
    """The second part: PRODUCT_ID bytes that stand for the product."""
    return hashlib.blake2b(productId.encode("utf-8"), digest_size=PRODUCT_ID).digest()


def standing_products(records: Iterable[DeviceState]) -> list[DeviceState]:
    """The records of one device that count: its own product's first, others by name; a former product
    counts as long as nothing else has been heard."""
    ranked = sorted(records, key=lambda one: (one.standing, one.productId))
    return [one for one in ranked if one.standing != FORMER] or ranked


def metrics_by_name(records: Iterable[DeviceState]) -> dict[str, MetricState]:
    """The metrics of all products of one device: under their own name, or, where a product before them
    in `standing_products` has one of that name, as `productId.name`; in order of these names."""
    found: dict[str, MetricState] = {}
    for record in standing_products(records):
        taken = frozenset(found)
        for name, metric in record.metrics.items():
            found[f"{record.productId}.{name}" if name in taken else name] = metric
    return dict(sorted(found.items()))


def record_tail(device_id: str, alarms: list[str], flags: dict[str, int]) -> bytes:
    """How the record of a device with open alarms ends."""
    return _ENCODER.encode(_Tail(device_id, alarms, flags))


def _tail(data: bytes) -> _Tail:
    try:
        if data[:1] != NO_ALARMS:
            return _DECODER.decode(data)
        if len(data) < 2 or data[-1:] != NO_ALARMS:
            raise ValueError("its end is missing")
        return _Tail(data[1:-1].decode("utf-8", "surrogatepass"), [], {})
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"a device's record is damaged: {error}") from error


def record_layout(data: bytes) -> bytes:
    """The id of a record's layout; ValueError for bytes of another version."""
    if len(data) < _HEAD.size or data[0] not in _STANDINGS:
        raise ValueError("this is no record of a device of this version")
    layout: bytes = _HEAD.unpack_from(data)[1]
    return layout


class RecordReader:
    """Reads records. layout: bytes of a layout by id; text: a text by its code."""

    def __init__(self, layout: Callable[[bytes], bytes | None], text: Callable[[int], str | None]) -> None:
        self._layout = layout
        self._text = text
        self._known: dict[bytes, tuple[Layout, np.dtype[np.void]]] = {}

    def read(self, data: bytes) -> DeviceState:
        """The state in a record; ValueError where it cannot be made out."""
        layout, numbers = self._of(record_layout(data))
        tail = _tail(data[_HEAD.size + numbers.itemsize :])
        try:
            cells = np.frombuffer(data, numbers, 1, _HEAD.size)[0]
        except ValueError as error:
            raise ValueError(f"a device's record is damaged: {error}") from error
        metrics, windows = self._metrics(layout, cells), _windows(layout, cells)
        return DeviceState(
            tail.device_id, layout.productId, metrics, windows, tail.alarms, tail.flags, data[0]
        )

    def heard(self, data: bytes) -> Heard:
        """Whose a record is; ValueError where that cannot be made out."""
        layout, numbers = self._of(record_layout(data))
        return Heard(_tail(data[_HEAD.size + numbers.itemsize :]).device_id, layout.productId, data[0])

    def _of(self, identifier: bytes) -> tuple[Layout, np.dtype[np.void]]:
        found = self._known.get(identifier)
        if found is None:
            body = self._layout(identifier)
            if body is None:
                raise ValueError("the layout of a device's record is not there")
            layout = msgspec.msgpack.decode(body, type=Layout)
            found = self._known[identifier] = layout, layout.numbers()
        return found

    def _metrics(self, layout: Layout, cells: np.void) -> dict[str, MetricState]:
        quality = cells["quality"].tolist()
        latest, time, position = (cells[name].tolist() for name in ("latest", "time", "position"))
        return {
            name: MetricState(self._typed(kind, latest[m]), quality[m], time[m], position[m])
            for m, (name, kind) in enumerate(layout.metrics)
            if quality[m] != ABSENT
        }

    def _typed(self, kind: str, value: float) -> Value:
        if kind == "string" and value == value:
            return self._text(int(value))
        return typed_value(kind, value, {})


def _windows(layout: Layout, cells: np.void) -> dict[str, dict[str, dict[str, WindowState]]]:
    found: dict[str, dict[str, dict[str, WindowState]]] = {}
    kept, start, revision = (cells[name].tolist() for name in ("kept", "kept_start", "kept_revision"))
    for column, (window, aggregate, metric) in enumerate(layout.aggregates):
        if start[column] != NO_WINDOW:
            value = kept[column] if kept[column] == kept[column] else None
            below = found.setdefault(window, {}).setdefault(metric, {})
            below[aggregate] = WindowState(value, start[column], revision[column])
    return found


def cut_records(
    layout: Layout, state: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64]
) -> list[bytes]:
    """Records of the given rows of state arrays, each but for its tail."""
    numbers = layout.numbers()
    head = [("standing", "u1"), ("layout", f"V{LAYOUT_ID}"), ("numbers", numbers)]
    table = np.empty(len(rows), np.dtype(head))
    table["standing"] = state["standing"][rows]
    table["layout"] = np.void(layout.id())
    for name in numbers.names or ():
        table["numbers"][name] = state[name][rows]
    body, size = table.tobytes(), table.dtype.itemsize
    return [body[at : at + size] for at in range(0, len(body), size)]


def typed_value(kind: str, value: float, texts: Mapping[int, str]) -> Value:
    """A cell of a column as a person knows it: None for NaN, a text for its code."""
    if math.isnan(value):
        return None
    if kind == "string":
        return texts.get(int(value))
    if kind == "boolean":
        return value != 0.0
    if kind == "integer":
        return int(value)
    return value


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Tail)
