"""From a product's spec to its decoder, and the reading of device names out of payloads."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from operators.batch import FrameBatch, Int32, Int64
from operators.decode.columns import Decoder
from operators.decode.csv_decoder import CsvDecoder
from operators.decode.csv_spec import CsvSpec
from operators.decode.enclosed import EnclosedDecoder
from operators.decode.encoded import EncodedDecoder
from operators.decode.json_binary import JsonBinaryDecoder
from operators.decode.json_decoder import JsonDecoder, Spelled, details, device_names
from operators.decode.json_rows import JsonRowsDecoder
from operators.decode.json_rows_binary import JsonRowsBinaryDecoder
from operators.decode.json_spec import JsonSpec, parse_path
from operators.decode.packed import PackedDecoder, unpack
from operators.decode.spec import PACKED, DecodePlan, ProductDecode, SourceSpec
from operators.decode.typed_decoder import TypedDecoder
from operators.decode.typed_spec import TypedSpec
from operators.decode.udf import UdfDecoder
from operators.decode.udf_spec import UdfSpec
from operators.rejects import Reason


def build_decoder(product: ProductDecode, depth: int) -> Decoder:
    """The decoder of a product whose section has passed its checks; depth: nesting of JSON."""
    decoder = _decoder(product, depth)
    enclosed = product.decode.enclosed
    return decoder if enclosed is None else EnclosedDecoder(decoder, enclosed)


def _decoder(product: ProductDecode, depth: int) -> Decoder:
    layout = product.decode.layout
    if isinstance(layout, JsonSpec) and product.decode.format in PACKED:
        return PackedDecoder(_json_decoder(product, layout, depth), layout, product.decode.format, depth)
    if isinstance(layout, JsonSpec):
        return _json_decoder(product, layout, depth)
    if isinstance(layout, CsvSpec):
        return CsvDecoder(layout, product.metrics, params=product.params, device_params=product.device_params)
    if isinstance(layout, TypedSpec):
        return TypedDecoder(layout, product.metrics)
    if isinstance(layout, UdfSpec):
        return UdfDecoder(layout, product.metrics)
    from operators.decode.binary_decoder import BinaryDecoder

    decoder = BinaryDecoder(layout, product.metrics)
    if product.decode.encoding != "raw":
        return EncodedDecoder(decoder, product.decode.encoding)
    return decoder


def _json_decoder(product: ProductDecode, layout: JsonSpec, depth: int) -> Decoder:
    if layout.binary is not None and layout.rows is not None:
        return JsonRowsBinaryDecoder(
            layout,
            product.metrics,
            depth=depth,
            params=product.params,
            device_params=product.device_params,
        )
    if layout.binary is not None:
        return JsonBinaryDecoder(layout, product.metrics, depth=depth)
    if layout.rows is not None:
        return JsonRowsDecoder(
            layout,
            product.metrics,
            depth=depth,
            params=product.params,
            device_params=product.device_params,
        )
    return JsonDecoder(layout, product.metrics, depth=depth)


@dataclass(slots=True, eq=False)
class Names:
    """Names of R frames' devices: status int32[R] 0 or a `Reason`, place int64[R], detail and device
    by frame. span: int64[R, >= 2], where a name that is spelled in the payload itself stands there,
    from its first byte to behind its last, -1: nowhere."""

    status: Int32
    place: Int64
    detail: MutableMapping[int, str] = field(default_factory=dict)
    device: Mapping[int, str] = field(default_factory=dict)
    span: Int64 | None = None


class Way(NamedTuple):
    """How the device's name is found: `where` in the payload; csv: the product by whose layout its rows are
    read, or ""; packed: msgpack or cbor, or ""."""

    where: str
    csv: str
    packed: str


class DeviceNames:
    """Reads the device's name out of payloads, for sources with `device: payload:PATH`: a path in
    JSON (MessagePack and CBOR alike), a column of CSV. What kind of payload it is, the products that may
    take it say."""

    def __init__(self, plan: DecodePlan) -> None:
        self.plan = plan
        self._decoders: dict[tuple[str, str], JsonDecoder | CsvDecoder] = {}

    def way(self, source: SourceSpec, takers: tuple[str, ...]) -> Way:
        """How to read the frames of a source that these products may take."""
        where = source.device.partition(":")[2]
        known = [self.plan.products[name] for name in takers if name in self.plan.products]
        csv = next((p.productId for p in known if isinstance(p.decode.layout, CsvSpec)), "")
        packed = next((p.decode.format for p in known if p.decode.format in PACKED), "")
        return Way(where, csv, packed)

    def read(self, way: Way, frames: FrameBatch, rows: Int64) -> Names:
        """The names in the frames at `rows`; a frame without one is `unknown_device`."""
        decoder = self._decoders.get(way[:2])
        if decoder is None:
            decoder = self._decoders[way[:2]] = self._make(way.where, way.csv)
        if isinstance(decoder, CsvDecoder):
            names = Names(*decoder.texts(frames, rows, way.where))
        elif way.packed:
            names = Names(*self._packed(decoder, frames, rows, way.packed))
        else:
            names = self._spelled(decoder, frames, rows)
        if names.span is None:
            nameless = [at for at in range(len(rows)) if not names.status[at] and not names.device.get(at)]
        else:
            there = names.span[:, 0] < names.span[:, 1]
            nameless = np.flatnonzero((names.status == 0) & ~there).tolist()
        for at in nameless:
            names.status[at] = Reason.unknown_device
            names.place[at] = -1
            names.detail[at] = f"the payload names no device at '{way.where}'"
        return names

    @staticmethod
    def _spelled(decoder: JsonDecoder, frames: FrameBatch, rows: Int64) -> Names:
        found = decoder.walker.walk(frames, rows)
        details(found)
        span = found.spans[0]
        return Names(found.status, found.place, found.detail, Spelled(frames.payload, span), span)

    def _packed(
        self, decoder: JsonDecoder, frames: FrameBatch, rows: Int64, kind: str
    ) -> tuple[Int32, Int64, MutableMapping[int, str], dict[int, str]]:
        found = unpack(frames, rows, kind, self.plan.limits.depth)
        status, place = np.zeros(len(rows), np.int32), np.full(len(rows), -1, np.int64)
        inside = np.arange(len(found.good), dtype=np.int64)
        told, _, why, names = device_names(decoder, found.frames, inside)
        status[found.good] = told
        detail: MutableMapping[int, str] = {int(found.good[at]): text for at, text in why.items()}
        for at, (reason, where, text) in found.refused.items():
            status[at], place[at], detail[at] = reason, where, text
        return status, place, detail, {int(found.good[at]): name for at, name in names.items()}

    def _make(self, where: str, csv: str) -> JsonDecoder | CsvDecoder:
        if csv:
            layout = self.plan.products[csv].decode.layout
            return CsvDecoder(replace(layout, columns=(), derive=(), timestamp=None), ())
        path = parse_path(where)
        spec = JsonSpec(timestamp=None, hub_timestamp=None, container=None)
        return JsonDecoder(
            spec, (), depth=self.plan.limits.depth, device=(where,) if isinstance(path, str) else path
        )
