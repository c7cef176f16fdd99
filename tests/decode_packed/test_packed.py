"""MessagePack and CBOR: what JSON says of a value, both say too; what is neither is refused at its byte."""

from __future__ import annotations

import datetime
import json
import math
import struct
from decimal import Decimal
from typing import Any

import cbor2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Address
from operators.decode.columns import Decoded
from operators.decode.decoders import DeviceNames, build_decoder
from operators.decode.spec import DecodePlan, ProductDecode, SourceSpec
from operators.rejects import Reason
from tests.decode_json.frames import INGEST_NS, batch, good_spec

KINDS = {"t": "number", "n": "integer", "on": "boolean", "mode": "string"}
PACK = {"msgpack": msgspec.msgpack.encode, "cbor": cbor2.dumps, "json": msgspec.json.encode}


def decode(text: str, payloads: list[bytes], depth: int = 64) -> Decoded:
    product = ProductDecode("p", good_spec(text, KINDS), tuple(KINDS.items()))
    decoder = build_decoder(product, depth)
    frames = batch(payloads)
    return decoder.decode(frames, np.arange(len(payloads)), np.empty((0, len(payloads))))


def readings(found: Decoded) -> list[Any]:
    """Each reading as (frame, time, {metric: value or quality})."""
    told = []
    for row in range(len(found.frame)):
        values: dict[str, Any] = {}
        for m, (name, kind) in enumerate(KINDS.items()):
            value, quality = float(found.value[m, row]), int(found.quality[m, row])
            if quality == 0:
                values[name] = found.texts[int(value)] if kind == "string" else value
            elif quality != 3:
                values[name] = ("quality", quality)
        told.append((int(found.frame[row]), int(found.ts_ns[row]), values))
    return told


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.lists(st.integers(), max_size=3)
)
METRICS = st.dictionaries(st.sampled_from([*KINDS, "other"]), VALUES, max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(METRICS, st.integers(0, 2**41)), min_size=1, max_size=6),
    st.sampled_from(["msgpack", "cbor"]),
)
def test_equal_to_json(messages: list[tuple[dict[str, Any], int]], kind: str) -> None:
    plain = [{"device_timestamp": at, "data": {"metrics": metrics}} for metrics, at in messages]
    plain = [json.loads(json.dumps(one)) for one in plain]
    plain = [one for one in plain if all(_fits(v) for v in one["data"]["metrics"].values())]
    if not plain:
        return
    packed = decode(f"format: {kind}", [PACK[kind](one) for one in plain])
    text = decode("format: json", [PACK["json"](one) for one in plain])
    assert readings(packed) == readings(text)
    assert packed.status.tolist() == text.status.tolist()
    assert packed.unknown == text.unknown


def _fits(value: Any) -> bool:
    return not isinstance(value, list) or all(-(2**63) <= item < 2**64 for item in value)


@pytest.mark.parametrize("kind", ["msgpack", "cbor"])
def test_paths_rows_and_binary_parts(kind: str) -> None:
    pack = PACK[kind]
    found = decode(
        f"format: {kind}\ntimestamp: {{path: at, unit: s}}\nmetrics: {{t: 'a[1].b', n: '7', mode: raw}}",
        [pack({"at": 1772355600, "a": [0, {"b": 1.5}], 7: 9, "raw": b"\x01\xab"})],
    )
    assert readings(found) == [(0, INGEST_NS, {"t": 1.5, "n": 9.0, "mode": "01ab"})]
    found = decode(
        f"format: {kind}\nrows: 'v[*]'\nmetric: id\nvalue: x\ntimestamp: t",
        [pack({"v": [{"id": "t", "x": 2, "t": 5}, {"id": "on", "x": True, "t": 5}]})],
    )
    assert readings(found) == [(0, 5_000_000, {"t": 2.0, "on": 1.0})]
    for encoding, layout in (("", "t: {at: 0, as: s16}"), ("encoding: base64\n", "t: {at: 0, as: s16}")):
        found = decode(
            f"format: {kind}\nbinary: bin\n{encoding}fields: {{{layout}}}",
            [pack({"bin": b"\xff\xfe"}), pack({"bin": b"\x01"}), pack({"bin": 5})],
        )
        assert readings(found)[0][2] == {"t": -2.0}
        assert found.status.tolist() == [0, Reason.short, Reason.malformed]
        assert found.place.tolist()[1:] == [0, -1]
        assert found.detail[1].startswith("in bin: ")


def test_what_only_these_formats_have() -> None:
    noon = datetime.datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=datetime.UTC)
    for kind in ("msgpack", "cbor"):
        at = PACK[kind](noon) if kind == "msgpack" else cbor2.dumps(noon, datetime_as_timestamp=True)
        head = b"\x81\xa2at" if kind == "msgpack" else b"\xa1\x62at"
        found = decode(f"format: {kind}\ntimestamp: at\nmetrics: {{t: x}}", [head + at])
        assert readings(found) == [(0, int(noon.timestamp() * 1000) * 1_000_000, {})]
    text = "format: cbor\nmetrics: {t: t, n: n, mode: m}"
    found = decode(
        text,
        [
            cbor2.dumps({"t": Decimal("1.25"), "n": 2**70, "m": cbor2.undefined}),
            bytes.fromhex("a1 61 74 c4 82 1a 7fffffff 01"),  # 1E2147483647
            cbor2.dumps(cbor2.CBORTag(55799, {"t": cbor2.CBORTag(0x10000, 3)})),  # tags that say nothing here
            bytes.fromhex("bf 61 74 f9 3e00 61 6d 7f 61 61 61 62 ff ff"),  # of unknown length
            cbor2.dumps({"t": cbor2.CBORTag(5, [2**40, 1])}),  # a bigfloat: an array is no number
        ],
    )
    assert readings(found) == [
        (0, INGEST_NS, {"t": 1.25, "n": 2.0**70, "mode": ("quality", 2)}),
        (2, INGEST_NS + 2_000_000, {"t": 3.0}),
        (3, INGEST_NS + 3_000_000, {"t": 1.5, "mode": "ab"}),
        (4, INGEST_NS + 4_000_000, {"t": ("quality", 4)}),
    ]
    assert found.status.tolist() == [0, Reason.bad_number, 0, 0, 0]
    found = decode("format: msgpack\nmetrics: {mode: m}", [bytes.fromhex("81 a1 6d d5 05 0102")])
    assert readings(found)[0][2] == {"mode": "0102"}


@pytest.mark.parametrize(
    ("kind", "frame", "reason", "place", "message"),
    [
        ("msgpack", "81 a1 74", "short", 3, "the frame ends within the value that begins at byte 3"),
        ("msgpack", "81 a5 74", "short", 1, "the frame ends within the value that begins at byte 1"),
        ("msgpack", "dd 7fffffff", "short", 0, "the frame ends within the value that begins at byte 0"),
        ("msgpack", "df ffffffff", "short", 0, "the frame ends within the value that begins at byte 0"),
        ("msgpack", "80 00", "malformed", 1, "the value is over, but bytes follow at byte 1"),
        (
            "msgpack",
            "81 c0 00",
            "malformed",
            1,
            "a map's key is neither a text nor a whole number, at byte 1",
        ),
        (
            "msgpack",
            "81 90 00",
            "malformed",
            1,
            "a map's key is neither a text nor a whole number, at byte 1",
        ),
        ("msgpack", "81 a1 74 c1", "malformed", 3, "no value begins at byte 3"),
        (
            "msgpack",
            "81 a1 74 ca 7fc00000",
            "bad_number",
            3,
            "NaN, an infinity or a number beyond a double at byte 3",
        ),
        ("msgpack", "81 a1 74 cb fff0000000000000", "bad_number", 3, None),
        ("msgpack", "91" * 65 + "00", "too_deep", 64, "nested too deeply at byte 64"),
        ("msgpack", "81 a1 74 a1 ff", "malformed", None, "a text that is not UTF-8"),
        (
            "msgpack",
            "81 a1 74 c7 0c ff 00000000 7fffffffffffffff",
            "malformed",
            None,
            "a tagged time is none, or lies beyond the years 1 to 9999",
        ),
        ("msgpack", "90", "malformed", None, None),
        ("cbor", "a1 61 74", "short", 3, "the frame ends within the value that begins at byte 3"),
        ("cbor", "9b 7fffffffffffffff", "short", 0, None),
        ("cbor", "bb ffffffffffffffff", "short", 0, None),
        ("cbor", "5b ffffffffffffffff", "short", 0, None),
        ("cbor", "a0 00", "malformed", 1, "the value is over, but bytes follow at byte 1"),
        ("cbor", "ff", "malformed", 0, "no value begins at byte 0"),
        ("cbor", "bf 61 74 ff", "malformed", 3, "no value begins at byte 3"),
        ("cbor", "1c", "malformed", 0, "no value begins at byte 0"),
        ("cbor", "a1 61 74 f0", "malformed", 3, "no value begins at byte 3"),
        ("cbor", "a1 82 01 02 03", "malformed", 1, None),
        ("cbor", "a1 61 74 f9 7c00", "bad_number", 3, None),
        ("cbor", "a1 61 74 c2 58 81" + "ff" * 129, "bad_number", 3, None),
        (
            "cbor",
            "a1 61 74 c1 60",
            "malformed",
            3,
            "a tagged time or number is not what its tag says at byte 3",
        ),
        ("cbor", "a1 61 74 c1 c1 00", "malformed", 3, None),
        ("cbor", "a1 61 74 c1 1b ffffffffffffffff", "malformed", None, None),
        ("cbor", "7f 41 61 ff", "malformed", 1, "a string's part is no string of its kind at byte 1"),
        ("cbor", "81" * 65 + "00", "too_deep", 64, "nested too deeply at byte 64"),
        ("cbor", "c6" * 5000 + "a0", None, None, None),
        ("cbor", "a1 61 74 61 ff", "malformed", None, "a text that is not UTF-8"),
    ],
)
def test_what_is_neither(
    kind: str, frame: str, reason: str | None, place: int | None, message: str | None
) -> None:
    found = decode(f"format: {kind}", [bytes.fromhex(frame)])
    if reason is None:
        assert found.status.tolist() == [0]
        return
    assert Reason(int(found.status[0])).name == reason, found.detail
    assert int(found.place[0]) == (-1 if place is None else place)
    if message is not None:
        assert found.detail[0] == message


def test_the_place_of_a_json_text_is_not_told() -> None:
    """What JSON refuses has a byte of a text that nobody sent."""
    found = decode("format: cbor", [cbor2.dumps({"device_timestamp": "soon", "data": {"metrics": {}}})])
    assert found.status.tolist() == [Reason.malformed]
    assert found.place.tolist() == [-1]
    assert found.detail[0].startswith("device_timestamp: ")
    assert "byte" not in found.detail[0]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["msgpack", "cbor"]))
def test_any_bytes_end_as_a_reading_or_a_reject(payload: bytes, kind: str) -> None:
    """What the library reads as plain JSON-like data is taken, whatever else is refused."""
    found = decode(f"format: {kind}\nmetrics: {{t: t}}", [payload])
    assert (len(found.frame) == 1) == (found.status[0] == 0)
    try:
        value = msgspec.msgpack.decode(payload) if kind == "msgpack" else None
    except Exception:
        value = None
        if kind == "msgpack":
            assert found.status[0]
    if isinstance(value, dict) and _plain(value):
        assert found.status[0] == 0


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and not isinstance(key, bool) for key in value) and all(
            _plain(item) for item in value.values()
        )
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=200, deadline=None)
@given(st.recursive(VALUES | st.binary(max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=9))
def test_every_value_of_the_library_is_taken(value: Any) -> None:
    if not _sixty_four_bits(value):
        return
    for kind in ("msgpack", "cbor"):
        found = decode(f"format: {kind}\nmetrics: {{t: t}}", [PACK[kind]({"x": value})])
        assert found.status.tolist() == [0], found.detail


def _sixty_four_bits(value: Any) -> bool:
    if isinstance(value, list):
        return all(_sixty_four_bits(item) for item in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def test_half_floats_and_every_head() -> None:
    """CBOR's half floats and all 256 first bytes, alone: none of them raises."""
    halves = [struct.pack(">BBBBe", 0xA1, 0x61, 0x74, 0xF9, value) for value in (0.0, -0.5, 65504.0, 6e-8)]
    found = decode("format: cbor\nmetrics: {t: t}", halves)
    assert [one[2]["t"] for one in readings(found)] == [0.0, -0.5, 65504.0, 2.0**-24]
    for kind in ("msgpack", "cbor"):
        found = decode(f"format: {kind}", [bytes([head]) for head in range(256)])
        assert len(found.frame) == int((found.status == 0).sum())


@pytest.mark.parametrize("kind", ["msgpack", "cbor"])
def test_devices_named_in_the_payload(kind: str) -> None:
    product = ProductDecode("p", good_spec(f"format: {kind}", KINDS), tuple(KINDS.items()))
    names = DeviceNames(DecodePlan({"p": product}))
    payloads = [PACK[kind]({"sn": "a1"}), b"\xc1", PACK[kind]({"sn": 7}), PACK[kind]({})]
    frames = batch(payloads, addresses=(Address("s", "t"),))
    way = names.way(SourceSpec("s", device="payload:sn"), ("p",))
    found = names.read(way, frames, np.arange(4))
    assert found.device == {0: "a1", 2: "7"}
    assert [int(one) for one in found.status] == [
        0,
        Reason.malformed if kind == "msgpack" else Reason.short,
        0,
        7,
    ]
