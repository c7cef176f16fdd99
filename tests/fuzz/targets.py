"""What is fuzzed: the decoders of the example products, of real devices' layouts, of JSON and of CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flows.plant_products import read_products
from flows.plant_reader import python_beside
from operators.batch import Address
from operators.decode.binary_decoder import single_batch
from operators.decode.columns import IGNORED, Decoded, Decoder
from operators.decode.decoders import build_decoder
from operators.decode.spec import ProductDecode
from operators.document import Problems, load_yaml
from operators.rejects import Reason

ROOT = Path(__file__).parents[2]
NS = 1_772_355_600_000_000_000
MORE: dict[str, tuple[str, tuple[bytes, ...], str]] = {
    # name: (product, frames to begin with, header line)
    "json-wide": (
        """\
productId: json-wide
version: 1
decode: {format: json}
metrics: {tempC: {}, n: {type: integer}, on: {type: boolean}, mode: {type: string}}
""",
        (
            b'{"device_timestamp":1772355600000,"data":{"metrics":{"tempC":71.5,"n":3,"on":true,"mode":"r\\u00fcn"}}}',
            b'{"data":{"metrics":{"tempC":-1.25e-3,"mode":null,"x":[1,{"a":"b"}]}},"hub_timestamp":"2026-03-01T09:00Z"}',
        ),
        "",
    ),
    "json-rows": (
        """\
productId: json-rows
version: 1
decode: {format: json, rows: "values[*]", metric: id, value: v, timestamp: t}
metrics: {tempC: {}, on: {type: boolean}, mode: {type: string}}
""",
        (
            b'{"values":[{"id":"tempC","v":1.5,"t":1772355600000},{"id":"mode","v":"a"},{"id":"on","v":true}]}',
        ),
        "",
    ),
    "json-binary": (
        """\
productId: json-binary
version: 1
decode: {format: json, binary: data.bin, fields: {tempC: {at: 0, as: s16}, rest: {text: hex, size: rest}}}
metrics: {tempC: {}, rest: {type: string}}
""",
        (b'{"device_timestamp":1772355600000,"data":{"bin":"01FF 02"}}', b'{"data":{"bin":"Af8C"}}'),
        "",
    ),
    "msgpack": (
        """\
productId: msgpack
version: 1
decode: {format: msgpack, metrics: {tempC: t, n: "a[1]", mode: m}}
metrics: {tempC: {}, n: {type: integer}, mode: {type: string}}
""",
        (
            bytes.fromhex("83a174cb4035800000000000a1619201cd0203a16da372756e"),
            bytes.fromhex("82a174ca41ac0000a16dc403010203"),
            bytes.fromhex("81b06465766963655f74696d657374616d70d6ff69a3d310"),
        ),
        "",
    ),
    "cbor": (
        """\
productId: cbor
version: 1
decode: {format: cbor, rows: "[*]", metric: "0", value: "2", timestamp: {path: "6", unit: s}}
metrics: {tempC: {}, n: {type: integer}, mode: {type: string}}
""",
        (
            bytes.fromhex("81a3006574656d704302f94d4006c11a69a3d310"),
            bytes.fromhex("82a200616e02c24101bf00646d6f6465027f6172ffff"),
        ),
        "",
    ),
    "csv": (
        """\
productId: csv
version: 1
decode: {format: csv, separator: ";", decimal: ",", timestamp: t, columns: {tempC: x, mode: 3}}
metrics: {tempC: {}, mode: {type: string}}
""",
        (b"2026-03-01 09:00:00;21,5;run", b'1772355600000;-1e3;"a;""b"""'),
        "t;x;m",
    ),
}


class Target(NamedTuple):
    """A decoder with frames to begin with. header: of a CSV file."""

    name: str
    decoder: Decoder
    seeds: tuple[bytes, ...]
    header: str = ""


def targets() -> Iterator[Target]:
    """All of them, in a fixed order."""
    for path in sorted((ROOT / "examples" / "products").glob("*.yaml")):
        if "udf:" in path.read_text():  # its own process; tests/decode_udf
            continue
        yield _target(path.stem, path.read_text(), (), "", python_beside(path))
    for name, (text, seeds, header) in MORE.items():
        yield _target(name, text, seeds, header)


def _target(
    name: str, text: str, seeds: tuple[bytes, ...], header: str, sources: Mapping[str, bytes] | None = None
) -> Target:
    problems = Problems()
    products = read_products({name: load_yaml(text, name, problems)}, {}, problems, sources)
    assert not problems.errors, problems.render()
    product = products.good[name]
    metrics = tuple((key, metric.type) for key, metric in product.metrics.items())
    decoder = build_decoder(ProductDecode(name, product.decode, metrics), 64)
    return Target(name, decoder, seeds + tuple(one.payload() or b"" for one in product.vectors), header)


def decoded(target: Target, payload: bytes, port: int = -1) -> Decoded:
    """What one frame gives."""
    batch = single_batch([payload], [port], [NS])
    batch.addresses = (Address("", "", port, (("csv", target.header),) if target.header else ()),)
    params = np.full((len(target.decoder.param_names), 1), math.nan)
    return target.decoder.decode(batch, np.zeros(1, np.int64), params)


def try_frame(target: Target, payload: bytes, port: int = -1) -> None:
    """Decode one frame; raises AssertionError where the decoder breaks its contract (see `Decoder`)."""
    found = decoded(target, payload, port)
    status, place = int(found.status[0]), int(found.place[0])
    assert status in (0, IGNORED) or status in set(Reason), status
    assert -1 <= place <= len(payload), place
    readings = len(found.frame)
    assert readings == 0 or status == 0, "something of a rejected frame came out"
    assert found.value.shape == found.quality.shape
    assert found.value.shape[1] == readings == len(found.ts_ns) == len(found.index)
    assert (np.asarray(found.quality) <= 4).all()
    good = np.asarray(found.quality) < 2
    assert np.isfinite(found.value[good]).all(), "a good value that is no number"
