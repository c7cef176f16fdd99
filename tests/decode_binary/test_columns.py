"""Straight layouts run by the column kernels and by the interpreter give the same, and so do
batches however they are cut."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operators.batch import FrameBatch
from operators.decode.binary_decoder import BinaryDecoder, layout_of, single_batch
from operators.decode.columns import Decoded
from operators.decode.layout_tables import crc_table

FIELDS = st.one_of(
    st.builds(
        lambda at, kind, scale, rest: {"at": at, "as": kind, **scale, **rest},
        st.integers(-4, 12),
        st.sampled_from(
            ["u8", "s8", "u16", "s16le", "u24", "s32", "u32le", "s48", "u40le", "s64", "f32", "f64le"]
        ),
        st.sampled_from(
            [{}, {"scale": 0.1}, {"scale": "1/3", "offset": -40}, {"scale": -2, "clamp": [0, 90.5]}]
        ),
        st.sampled_from([{}, {"missing": [0, "200.."]}, {"valid": [-3, 77]}]),
    ),
    st.builds(lambda at, bit: {"at": at, "bit": bit}, st.integers(0, 12), st.integers(0, 7)),
    st.builds(
        lambda at, signed: {
            "at": at,
            "bits": "6..2",
            "signed": signed,
            "map": {"0": 5, "1..9": True, "else": "x"},
        },
        st.integers(0, 12),
        st.booleans(),
    ),
    st.builds(lambda kind: {"as": kind}, st.sampled_from(["u8", "s16", "u32le"])),
)
PART = st.fixed_dictionaries(
    {"fields": st.dictionaries(st.sampled_from(["a", "b", "c", "_d", "e"]), FIELDS, min_size=1, max_size=4)},
    optional={
        "time": st.sampled_from(
            [{"at": 0, "as": "u32", "epoch": 2000}, {"at": 1, "as": "u64", "unit": "ms"}]
        ),
        "bits": st.sampled_from(
            [
                {"list": [{"a": 5}, {"skip": 2}, {"f": 11, "scale": 0.1}]},
                {"from": 1, "order": "lsb", "list": [{"f": 9}]},
            ]
        ),
    },
)
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "port": st.sampled_from([1, [2, "5.."]]),
        "length": st.sampled_from(["4..", "..9", [10, 12], {"multiple": 2, "plus": 1}]),
        "byte": st.sampled_from([{"0": "..120"}, {"-1": [0, 1, "9.."]}]),
        "mask": st.sampled_from([{"1": [3, 0, 1]}]),
    },
)
CHECKS = st.sampled_from(
    [
        {"crc16": {"poly": 0x8005, "reflect": True, "init": 0xFFFF, "at": -2, "order": "le"}},
        {"crc8": {"poly": 0x31, "init": 0xFF, "at": -1}, "on_fail": "flag"},
        {
            "crc32": {
                "poly": 0x04C11DB7,
                "reflect": True,
                "init": 0xFFFFFFFF,
                "xor": 0xFFFFFFFF,
                "at": -4,
                "over": "1..",
            }
        },
        {"sum8": {"at": 0, "over": "1.."}, "on_fail": "flag"},
        {"xor8": {"at": -1, "xor": 1}},
    ]
)
LAYOUTS = st.one_of(
    PART,
    st.builds(lambda check, part: {"check": check, **part}, CHECKS, PART),
    st.builds(
        lambda part, cases, last: {**part, "cases": [{"when": w, **p} for w, p in cases] + last},
        PART,
        st.lists(st.tuples(WHEN, PART), min_size=1, max_size=3),
        st.sampled_from([[], [{"else": "reject"}], [{"else": "ignore"}], [{"else": {}}]]),
    ),
)
METRICS = [("a", "number"), ("b", "string"), ("c", "boolean"), ("e", "number"), ("f", "integer")]


def decode(decoder: BinaryDecoder, batch: FrameBatch, rows: Any) -> Decoded:
    return decoder.decode(batch, np.array(rows, np.int64), np.empty((0, len(rows))))


def assert_same(left: Decoded, right: Decoded) -> None:
    for name in ("frame", "index", "ts_ns", "time_source", "value", "quality", "status", "place"):
        one, other = getattr(left, name), getattr(right, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert one.dtype == other.dtype, name
    assert left.detail == right.detail


@settings(deadline=None, max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
@given(LAYOUTS, st.lists(st.binary(max_size=16), min_size=1, max_size=12), st.integers(0, 11))
def test_columns_equal_the_interpreter(layout: Any, frames: list[bytes], cut: int) -> None:
    try:
        spec = layout_of(json.dumps(layout), [name for name, _ in METRICS])
    except ValueError:
        return
    fast, slow = BinaryDecoder(spec, METRICS), BinaryDecoder(spec, METRICS, columns=False)
    ports = [(n * 3) % 7 - 1 for n in range(len(frames))]
    batch = single_batch(frames, ports, [10**18 + n for n in range(len(frames))])
    rows = list(range(len(frames)))
    whole = decode(fast, batch, rows)
    assert_same(whole, decode(slow, batch, rows))
    parts = [decode(fast, batch, part) for part in (rows[:cut], rows[cut:]) if part]
    np.testing.assert_array_equal(np.concatenate([part.value for part in parts], axis=1), whole.value)
    np.testing.assert_array_equal(np.concatenate([part.status for part in parts]), whole.status)


def with_crc(frame: bytes) -> bytes:
    crc = 0xFFFF
    for byte in frame:
        crc = (crc >> 8) ^ crc_table(16, 0x8005, True)[(crc ^ byte) & 0xFF]
    return frame + crc.to_bytes(2, "little")


@pytest.fixture
def hydraulic() -> BinaryDecoder:
    text = """
check: {crc16: {poly: 0x8005, reflect: true, init: 0xFFFF, at: -2, order: le}}
cases:
  - when: {length: 27, byte: {0: 0x48}}
    time: {at: 1, as: u64, unit: ms}
    fields:
      a: {at: 9, as: u16, scale: 0.1}
      b: {at: 15, bits: "1..0", map: {0: idle, 1: run}}
      e: {at: 16, as: u32}
  - else: reject
"""
    return BinaryDecoder(layout_of(text, [name for name, _ in METRICS]), METRICS)


def test_fixed_frames_with_a_crc_run_by_columns(hydraulic: BinaryDecoder) -> None:
    assert hydraulic.straight is not None
    good = with_crc(
        b"\x48" + (1_700_000_000_123).to_bytes(8, "big") + bytes([0, 250, 0, 0, 0, 0, 1]) + bytes(9)
    )
    frames = [good, good[:-1] + b"\x00", good[:5], with_crc(b"\x49" + good[1:25]), good]
    got = decode(hydraulic, single_batch(frames, [-1] * 5, [5] * 5), range(5))
    assert got.status.tolist() == [0, 11, 11, 10, 0]
    assert got.frame.tolist() == [0, 4]
    assert got.ts_ns.tolist() == [1_700_000_000_123_000_000] * 2
    assert got.value[0].tolist() == [25.0, 25.0]
    assert got.texts[int(got.value[1, 0])] == "run"
    assert got.quality[:, 0].tolist() == [0, 0, 3, 0, 3]
    assert got.detail[1] == "the check at byte 25 does not fit the bytes that it covers"


def test_a_read_only_payload_is_fine(hydraulic: BinaryDecoder) -> None:
    good = with_crc(b"\x48" + bytes(24))
    batch = single_batch([good], [-1], [5])
    batch.payload = np.frombuffer(good, np.uint8)
    assert decode(hydraulic, batch, [0]).status.tolist() == [0]


def test_names_that_nobody_declared_are_counted() -> None:
    text = "tlv: {key: u8, items: {'*': {'t{0}': {as: u8}}}}"
    decoder = BinaryDecoder(layout_of(text, ["t1"]), [("t1", "number")])
    got = decode(
        decoder, single_batch([b"\x01\x05", b"\x02\x06\x02\x07", b"\x02\x08"], [1] * 3, [0] * 3), range(3)
    )
    assert got.unknown == {"t2": 2}
    assert got.unknown_frame is not None
    assert got.unknown_frame.tolist() == [0, 1, 1]
    assert got.frame.tolist() == [0]


def test_params_by_frame() -> None:
    decoder = BinaryDecoder(
        layout_of("fields: {_x: {}}\nderive: {a: _x * param.k}", ["a"]), [("a", "number")]
    )
    assert decoder.param_names == ("k",)
    batch = single_batch([b"\x02", b"\x03", b"\x04"], [1] * 3, [0] * 3)
    got = decoder.decode(batch, np.arange(3), np.array([[10.0, np.nan, 0.5]]))
    assert got.frame.tolist() == [0, 2]
    assert got.value[0].tolist() == [20.0, 2.0]


def test_a_text_where_a_number_is_declared_is_a_breach() -> None:
    decoder = BinaryDecoder(layout_of("fields: {a: {text: hex, size: 1}}", ["a"]), [("a", "number")])
    got = decode(decoder, single_batch([b"\x02"], [1], [0]), [0])
    assert got.quality.tolist() == [[4]]


ITEM_FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "_d", "e", "f", "g"]),
    st.one_of(
        st.builds(
            lambda kind, rest: {"as": kind, **rest},
            st.sampled_from(["u8", "s8", "u16", "s16le", "u24", "u32le", "f32"]),
            st.sampled_from([{}, {"scale": 0.1}, {"missing": [0, "200.."]}, {"at": 1}, {"optional": True}]),
        ),
        st.just({"at": 0, "bit": 3}),
        st.just({"at": 0, "as": "u16", "bits": "9..3", "signed": True}),
    ),
    max_size=3,
)
ITEM_BODY = st.one_of(
    ITEM_FIELDS,
    ITEM_FIELDS.map(lambda fields: {"fields": fields, "size": 4}),
    st.just({"skip": 2}),
    st.just({"bits": {"list": [{"a": 3}, {"e": 11}, {"skip": 2}]}}),
)
KEYS = st.sampled_from(["01", "02", "03", "0?", "*", "02|05", "01..04"])


@st.composite
def item_layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Lists of items, some with a length behind the key, behind a fixed head and before a check."""
    tlv: dict[str, Any] = {
        "key": "u8",
        "items": draw(st.dictionaries(KEYS, ITEM_BODY, min_size=1, max_size=4)),
    }
    tlv["unknown"] = draw(st.sampled_from(["stop", "reject"]))
    tlv["repeated"] = draw(st.sampled_from(["last", "first", "reject"]))
    tlv["short"] = draw(st.sampled_from(["reject", "stop"]))
    if draw(st.booleans()):
        tlv["length"] = "u8"
    layout: dict[str, Any] = {"tlv": tlv}
    if draw(st.booleans()):
        tlv["from"] = 2
        layout["fields"] = {"g": {"at": 0, "as": "u16"}}
        layout["time"] = {"at": 0, "as": "u16", "unit": "h"}
    if draw(st.booleans()):
        tlv["to"] = -1
        layout["check"] = {"sum8": {"at": -1, "over": "0.."}}
    return layout


def items_frame(layout: dict[str, Any], keys: list[tuple[int, int]], noise: bytes, cut: int) -> bytes:
    """A frame of items (key, bytes behind it), with other values wherever values stand."""
    frame = noise[:2] if "from" in layout["tlv"] else b""
    at = 2
    for key, size in keys:
        frame += bytes([key]) + (bytes([size]) if "length" in layout["tlv"] else b"") + noise[at : at + size]
        at += size
    frame = frame[: len(frame) - cut] if cut else frame
    return frame + bytes([sum(frame) & 255]) if "check" in layout else frame


@settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    item_layouts(),
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4),
            st.sampled_from([0, 0, 1, 3]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_learned_shapes_equal_the_interpreter(layout: Any, kinds: Any, chance: Any) -> None:
    metrics = [*METRICS, ("g", "number")]
    try:
        spec = layout_of(json.dumps(layout), [name for name, _ in metrics])
    except ValueError:
        return
    fast, slow = BinaryDecoder(spec, metrics), BinaryDecoder(spec, metrics, columns=False)
    for _ in range(3):
        frames = [
            items_frame(layout, keys, chance.randbytes(32), min(cut, 2 + len(keys)))
            for keys, cut in (chance.choice(kinds) for _ in range(9))
        ]
        batch = single_batch(frames, [-1] * 9, [10**18 + n for n in range(9)])
        assert_same(decode(fast, batch, range(9)), decode(slow, batch, range(9)))


def test_items_that_come_again_go_by_columns() -> None:
    text = "tlv: {key: u8, items: {'01': {a: {as: u16}}, '02': {e: {as: u8, scale: 0.5}}}}"
    decoder = BinaryDecoder(layout_of(text, ["a", "e"]), [("a", "number"), ("e", "number")])
    assert decoder.shapes is not None
    frames = [b"\x01\x00\x05\x02\x09", b"\x02\x03\x01\x01\x00", b"\x02\x03\x01\x01", b"\x01\x00\x05\x03\x09"]
    for _ in range(2):
        got = decode(decoder, single_batch(frames, [-1] * 4, [0] * 4), range(4))
        assert got.status.tolist() == [0, 0, 9, 0]
        assert got.place.tolist() == [-1, -1, 3, -1]
        assert got.value[0].tolist() == [5, 256, 5]
        assert got.value[1, :2].tolist() == [4.5, 1.5]
    assert [(shape.length, shape.action) for shape in decoder.shapes.known] == [(5, 0), (4, 9), (5, 0)]
