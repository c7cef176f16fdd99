"""From the bytes of publish responses to frames for the journal."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from connectors.opcua import kernels as k
from connectors.opcua.enumerations import Enumerations
from connectors.opcua.nodes import Item
from connectors.source import Frame
from operators.batch import GOOD, UNCERTAIN, Bytes, Int64

VALUES_OF_FRAME: Final = 8192  # 230 KB, and the names
TEXT_KEPT: Final = 4096  # bytes of a text that is too large for a frame
HARD_CAP: Final = 15 << 20  # of a frame: what the journal takes
NODE_GONE: Final = (0x80340000, 0x80330000)  # BadNodeIdUnknown, BadNodeIdInvalid
NOT_THERE: Final = (*NODE_GONE, 0x80360000, 0x80370000)  # BadIndexRangeInvalid, BadIndexRangeNoData
PUBLISH_RESPONSE: Final = 829  # encodings of OPC 10000-6, table of numeric identifiers
REPUBLISH_RESPONSE: Final = 835
DATA_CHANGE: Final = 811
STATUS_CHANGE: Final = 820


class UnreadableError(ValueError):
    """Bytes that are no publish response."""


class Published(NamedTuple):
    """One publish response, or the answer to a republish request (subscription 0). changes: first byte and
    the one behind the last of each data change. status: of the subscription, if it tells one, else None."""

    body: bytes
    subscription: int
    number: int
    more: bool
    changes: tuple[tuple[int, int], ...]
    status: int | None = None


def read_published(body: bytes) -> Published:
    """The parts of a publish response, whose values stay bytes. Raises `UnreadableError`."""
    try:
        return _Reader(body).published()
    except (struct.error, IndexError) as error:
        raise UnreadableError(f"no publish response: {error}") from error


class _Reader:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def take(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self.body, self.at)
        self.at += struct.calcsize(form)
        return int(value)

    def node(self) -> int:
        """A numeric NodeId, as those of encodings are."""
        form = self.take("<B")
        if form == 0:
            return self.take("<B")
        if form == 1:
            return self.take("<xH")
        if form == 2:
            return self.take("<xxI")
        raise UnreadableError(f"an encoding's name of form {form}")

    def skip_string(self) -> None:
        self.skip(max(0, self.take("<i")))

    def skip(self, size: int) -> None:
        if self.at + size > len(self.body):
            raise UnreadableError("it ends too early")
        self.at += size

    def skip_diagnostic(self) -> None:
        mask = self.take("<B")
        for bit in (1, 2, 4, 8):
            if mask & bit:
                self.skip(4)
        if mask & 16:
            self.skip_string()
        if mask & 32:
            self.skip(4)
        if mask & 64:
            self.skip_diagnostic()

    def published(self) -> Published:
        kind = self.node()
        if kind not in (PUBLISH_RESPONSE, REPUBLISH_RESPONSE):
            raise UnreadableError("another answer than to a publish request")
        self.skip(16)  # time, handle, result: judged before
        self.skip_diagnostic()
        for _ in range(self.take("<i")):
            self.skip_string()
        self.node()
        if self.take("<B"):
            self.skip_string()
        subscription, more = 0, False
        if kind == PUBLISH_RESPONSE:
            subscription = self.take("<I")
            self.skip(4 * max(0, self.take("<i")))
            more = bool(self.take("<B"))
        number = self.take("<I")
        self.skip(8)
        changes: list[tuple[int, int]] = []
        status = None
        for _ in range(self.take("<i")):
            kind = self.node()
            coded = self.take("<B")
            size = self.take("<i") if coded else 0
            first = self.at
            self.skip(max(0, size))
            if kind == DATA_CHANGE and coded == 1:
                changes.append((first, self.at))
            elif kind == STATUS_CHANGE and coded == 1:
                (status,) = struct.unpack_from("<I", self.body, first)
        return Published(self.body, subscription, number, more, tuple(changes), status)


class Told(NamedTuple):
    """What a publish response came to. gone: items whose node, or place in it, the server does not have, with
    the status that says so; too_large: texts of which a frame holds only the beginning, for `rejects`."""

    frames: list[Frame]
    values: int
    overflows: int
    gone: dict[int, int]
    too_large: int = 0


class Changes:
    """The items of one session as tables, and the values of its responses as frames, one of each
    device. An item's client handle is its place in `items`. most_bytes: of a frame."""

    def __init__(self, items: Sequence[Item], most_bytes: int = 1_000_000) -> None:
        self.items = items
        self.most_bytes = min(most_bytes, HARD_CAP)
        self.enumerations: Enumerations | None = None  # whose numbers are told as texts
        devices: dict[str, int] = {}
        self._device: Int64 = np.array(
            [devices.setdefault(item.device, len(devices)) for item in items], np.int64
        )
        self.devices = list(devices)
        names = [item.metric.encode("utf-8") for item in items]
        self._first: Int64 = np.concatenate(([0], np.cumsum([len(name) for name in names]))).astype(np.int64)
        self._names: Bytes = np.frombuffer(b"".join(names) or b"\0", np.uint8).copy()
        self._longest = max((len(name) for name in names), default=0)

    def frames(self, published: Published, *, after_gap: bool = False) -> Told:
        """The frames of one response. after_gap: values before it are lost, and its own are
        uncertain. Raises `UnreadableError` for bytes that are no data change."""
        payload = np.frombuffer(published.body, np.uint8).copy()
        parts: list[tuple[Int64, npt.NDArray[np.float64]]] = []
        for first, last in published.changes:
            room = min((last - first) // 5, max(0, struct.unpack_from("<i", published.body, first)[0])) + 1
            columns, numbers = np.empty((room, k.WIDTH), np.int64), np.empty(room)
            count = k.read_changes(payload, first, last, columns, numbers)
            if count < 0:
                raise UnreadableError("a data change that cannot be read")
            parts.append((columns[:count], numbers[:count]))
        if not parts:
            return Told([], 0, 0, {})
        columns = np.ascontiguousarray(np.concatenate([one for one, _ in parts]))
        numbers = np.concatenate([one for _, one in parts])
        if self.enumerations is not None:
            payload = self.enumerations.apply(payload, columns, numbers)
        item = columns[:, k.ITEM]
        known = np.flatnonzero(item < len(self.items))
        if not len(known):
            return Told([], 0, 0, {})
        status = columns[:, k.STATUS]
        absent = known[np.isin(status[known], NOT_THERE)]
        gone = dict(zip(item[absent].tolist(), status[absent].tolist(), strict=True))
        overflows = int(((status[known] & k.OVERFLOW) == k.OVERFLOW).sum())
        values = len(known)
        size = np.where(columns[:, k.KIND] == k.TEXT, columns[:, k.LAST] - columns[:, k.FIRST], 0)
        room = self.most_bytes - k.HEAD - k.ROW - 8 - self._longest
        large = [self._too_large(payload, columns[v]) for v in known[size[known] > room].tolist()]
        known = known[size[known] <= room]
        ns = np.where(columns[:, k.SOURCE_NS] != 0, columns[:, k.SOURCE_NS], columns[:, k.SERVER_NS])
        order = known[np.lexsort((ns[known], self._device[item[known]]))]
        out = np.empty(len(known) * (k.HEAD + 8 + k.ROW + self._longest) + int(size[known].sum()), np.uint8)
        length, owner = np.empty((2, len(known)), np.int64)
        made = k.pack_devices(
            payload, columns, numbers, order, self._device, self._first, self._names,
            UNCERTAIN if after_gap else GOOD, VALUES_OF_FRAME, self.most_bytes,
            np.zeros((len(self.items), 2), np.int64), out, length, owner,
        )  # fmt: skip
        whole = out[: int(length[:made].sum())].tobytes()
        frames, start = [], 0
        for long, whose in zip(length[:made].tolist(), owner[:made].tolist(), strict=True):
            frames.append(Frame(self.devices[whose], whole[start : start + long]))
            start += long
        return Told(frames + large, values, overflows, gone, len(large))

    def _too_large(self, payload: Bytes, row: Int64) -> Frame:
        """A text that no frame has room for: its beginning, which becomes a reject."""
        item = self.items[int(row[k.ITEM])]
        first, last = int(row[k.FIRST]), int(row[k.LAST])
        said = f"a text of {last - first} bytes of '{item.metric}'; max_frame allows {self.most_bytes}"
        return Frame(
            item.device, payload[first : first + TEXT_KEPT].tobytes(), headers=(("too_large", said),)
        )
