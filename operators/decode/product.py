"""The products of the decode stage: their decoders, parameters by device, and readings that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import SEQ_PER_FRAME, Bytes, FrameBatch, Int64, ReadingBatch, Ticks
from operators.decode.columns import Decoded, Decoder
from operators.decode.decoders import build_decoder
from operators.decode.routing import GO
from operators.decode.spec import ProductDecode
from operators.devices import Devices
from operators.parameters import Overlay, Parameters
from operators.rejects import Reason

_NO_PLACE: Final = -1


class Product:
    """One product's decoder, and the parameters of its devices by slot."""

    def __init__(self, spec: ProductDecode, depth: int, parameters: Parameters) -> None:
        self.own_params: dict[str, Mapping[str, float]] = dict(spec.device_params)
        self.spec = replace(spec, device_params=Overlay(self.own_params, parameters))
        self.decoder: Decoder = build_decoder(self.spec, depth)
        self.devices = 0  # how many slots are of this product
        self._defaults = np.array([spec.params.get(n, np.nan) for n in self.decoder.param_names], np.float64)
        self._params = np.empty((0, len(self.decoder.param_names)))
        self._filled: set[int] = set()

    def params(self, slots: npt.NDArray[np.int64], devices: Devices) -> npt.NDArray[np.float64]:
        """float64[P, R] for the devices of R frames."""
        names = self.decoder.param_names
        if not names:
            return np.empty((0, len(slots)))
        if len(self._params) < len(devices):
            grown = np.empty((max(64, 2 * len(devices)), len(names)))
            grown[: len(self._params)] = self._params
            self._params = grown
        for slot in set(slots.tolist()) - self._filled:
            own = self.spec.device_params.get(devices.names[slot], {})
            self._params[slot] = [own.get(n, d) for n, d in zip(names, self._defaults, strict=True)]
            self._filled.add(slot)
        return np.ascontiguousarray(self._params[slots].T)

    def forget_params(self, slot: int) -> None:
        """Ask again for the parameters of a device, at its next frame."""
        self._filled.discard(slot)


@dataclass(slots=True, eq=False)
class NamedReadings:
    """The readings of one product whose payload names their devices. rows: int64[R] of the frames that
    were decoded; row, slot: int64[N] each reading's frame, and its device or -1; refused: reading ->
    why it is none of this plant's; waiting: row -> unknown device -> its readings, which are to be held;
    held: those that are."""

    rows: Int64
    decoded: Decoded
    row: Int64
    slot: Int64
    refused: dict[int, tuple[Reason, str]]
    waiting: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)

    def leave_out(self) -> None:
        """Go on without the readings that are held."""
        keep = np.ones(len(self.row), np.bool_)
        keep[self.held] = False
        now_at = np.cumsum(keep) - 1
        self.refused = {int(now_at[at]): why for at, why in self.refused.items() if keep[at]}
        keep_only(self.decoded, keep)
        self.row, self.slot = self.row[keep], self.slot[keep]


def leave_out_too_many(decoded: Decoded) -> None:
    """A frame with more readings than `seq` has room for becomes a reject, readings and all."""
    if not len(decoded.index) or int(decoded.index.max()) < SEQ_PER_FRAME - 1:
        return
    over = np.unique(decoded.frame[decoded.index >= SEQ_PER_FRAME - 1])
    for at in over.tolist():
        decoded.status[at] = Reason.malformed
        decoded.place[at] = _NO_PLACE
        decoded.detail[at] = f"more than {SEQ_PER_FRAME - 1} readings in one frame"
    drop(decoded, over)


def leave_out_undeclared(
    product: Product,
    decoded: Decoded,
    frames: FrameBatch,
    rows: Int64,
    params: npt.NDArray[np.float64],
) -> None:
    """With `on_unknown_metric: reject`, a frame with a metric that is not declared is a reject."""
    assert decoded.unknown_frame is not None
    over = np.flatnonzero((decoded.unknown_frame != 0) & (decoded.status == GO))
    for at in over.tolist():
        alone = product.decoder.decode(
            frames, rows[at : at + 1], np.ascontiguousarray(params[:, at : at + 1])
        )
        name = min(alone.unknown, default="?")
        decoded.status[at], decoded.place[at] = Reason.unmatched, _NO_PLACE
        decoded.detail[at] = f"'{name}' is no metric of {product.spec.productId} (on_unknown_metric: reject)"
    if len(over):
        drop(decoded, over)


def drop(decoded: Decoded, frames: npt.NDArray[np.integer[Any]]) -> None:
    """Take the readings of these frames out."""
    keep_only(decoded, ~np.isin(decoded.frame, frames))


def keep_only(decoded: Decoded, keep: npt.NDArray[np.bool_]) -> None:
    """Leave only these readings."""
    decoded.frame, decoded.index = decoded.frame[keep], decoded.index[keep]
    decoded.ts_ns, decoded.time_source = decoded.ts_ns[keep], decoded.time_source[keep]
    decoded.value, decoded.quality = decoded.value[:, keep], decoded.quality[:, keep]
    if decoded.names is not None:
        decoded.names = [name for name, kept in zip(decoded.names, keep.tolist(), strict=True) if kept]


def no_readings(spec: ProductDecode, ticks: Ticks) -> ReadingBatch:
    """No rows, only ticks."""
    metrics = len(spec.metrics)
    flags: Bytes = np.empty(0, np.uint8)
    return ReadingBatch(
        productId=spec.productId,
        device=np.empty(0, np.int32),
        ts_ns=np.empty(0, np.int64),
        value=np.empty((metrics, 0)),
        quality=np.empty((metrics, 0), np.uint8),
        seq=np.empty(0, np.uint64),
        ingest_ns=np.empty(0, np.int64),
        flags=flags,
        source=np.empty(0, np.int32),
        texts={},
        ticks=Ticks(np.zeros(len(ticks.row), np.int64), ticks.ns),
    )
