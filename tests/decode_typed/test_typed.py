"""Typed frames: what a source packs is what a product reads, against a plain reference; and what is no
typed frame is refused at its byte."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.typed import TypedValue, pack
from operators.decode.columns import Decoded
from operators.decode.decoders import build_decoder
from operators.decode.spec import ProductDecode
from operators.rejects import Reason
from tests.decode_json.frames import INGEST_NS, batch, decode_spec, good_spec
from tests.reference.typed_reference import readings as plain_readings

KINDS = {"t": "number", "n": "integer", "on": "boolean", "mode": "string"}
AT = INGEST_NS - 1_000_000_000


def decode(payloads: list[bytes], text: str = "format: typed", kinds: dict[str, str] = KINDS) -> Decoded:
    decoder = build_decoder(ProductDecode("p", good_spec(text, kinds), tuple(kinds.items())), 64)
    params = np.empty((len(decoder.param_names), len(payloads)))
    return decoder.decode(batch(payloads), np.arange(len(payloads)), params)


def readings(found: Decoded, kinds: dict[str, str] = KINDS) -> list[tuple[int, int, int, dict[str, Any]]]:
    told = []
    for row in range(len(found.frame)):
        values: dict[str, Any] = {}
        for m, (name, kind) in enumerate(kinds.items()):
            value, quality = float(found.value[m, row]), int(found.quality[m, row])
            if quality == 3:
                assert math.isnan(value)
                continue
            known = None if math.isnan(value) else found.texts[int(value)] if kind == "string" else value
            values[name] = (known, quality)
        told.append((int(found.frame[row]), int(found.ts_ns[row]), int(found.time_source[row]), values))
    return told


VALUES = (
    st.none() | st.booleans() | st.text(max_size=5) | st.floats() | st.integers(-(2**70), 2**70)
    | st.sampled_from([10**400, -(10**400)])
)  # fmt: skip
TIMES = st.sampled_from([0, AT, AT + 1, AT + 2, -5, 2**63 - 1])
VALUE = st.tuples(st.sampled_from([*KINDS, "ü/x", ""]), VALUES, TIMES, TIMES, st.integers(0, 2))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(VALUE, max_size=12), min_size=1, max_size=5))
def test_equal_to_the_reference(frames: list[list[tuple[str, Any, int, int, int]]]) -> None:
    found = decode([pack(TypedValue(*one) for one in values) for values in frames])
    assert not found.status.any()
    assert readings(found) == plain_readings(frames, KINDS, INGEST_NS)
    strange = [one[0] for values in frames for one in values if one[0] not in KINDS]
    assert found.unknown == {name: strange.count(name) for name in set(strange)}
    assert found.unknown_frame is not None
    assert found.unknown_frame.tolist() == [any(v[0] not in KINDS for v in values) for values in frames]
    at = [int(i) for i in found.index]
    assert at == [n for frame in range(len(frames)) for n in range(found.frame.tolist().count(frame))]


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUE, min_size=1, max_size=5), st.data())
def test_broken_bytes_are_told(values: list[tuple[str, Any, int, int, int]], data: st.DataObject) -> None:
    """Whatever a frame holds, the one beside it comes through."""
    whole = pack([TypedValue("t", 1.5, AT)])
    broken = bytearray(pack(TypedValue(*one) for one in values))
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    found = decode([whole, bytes(broken[: data.draw(st.integers(0, len(broken)))]), whole])
    assert found.status[[0, 2]].tolist() == [0, 0]
    told = readings(found)
    assert told[0] == (0, AT, 0, {"t": (1.5, 0)})
    assert told[-1] == (2, AT, 0, {"t": (1.5, 0)})
    if found.status[1]:
        assert 1 not in found.frame.tolist()


@pytest.mark.parametrize(
    ("at", "into", "reason", "told"),
    [
        (0, b"Q", Reason.malformed, "no typed frame, which begins with PTV1 and four counts at byte 0"),
        (4, b"\x02", Reason.malformed, "the frame's length is not that of the values it announces at byte 4"),
        (16, b"\x05", Reason.malformed, "its names and texts do not lie one behind the other at byte 16"),
        (24, b"\xff", Reason.encoding, "not valid UTF-8 at byte 24"),
        (52, b"\x01", Reason.malformed, "a value of a metric that has no name at byte 28"),
        (54, b"\x04", Reason.malformed, "a value of an unknown kind at byte 28"),
        (51, b"\x40", Reason.malformed, "a value that is none of the frame's texts at byte 28"),
        (55, b"\x03", Reason.malformed, "a value of unknown quality at byte 28"),
    ],
)  # fmt: skip
def test_what_is_wrong(at: int, into: bytes, reason: Reason, told: str) -> None:
    good = pack([TypedValue("mode", "", AT, AT)])
    assert len(good) == 16 + 8 + 4 + 28
    found = decode([good[:at] + into + good[at + 1 :]])
    assert found.status.tolist() == [reason]
    assert found.detail[0] == told


def test_renamed_and_derived() -> None:
    text = """
format: typed
metrics: {t: Motor/Temp, _raw: Motor/Raw}
derive: {n: "_raw * 2"}
"""
    frame = pack([TypedValue("Motor/Temp", 20.5, AT), TypedValue("Motor/Raw", 4, AT), TypedValue("t", 1, AT)])
    found = decode([frame], text)
    assert readings(found) == [(0, AT, 0, {"t": (20.5, 0), "n": (8.0, 0)})]
    assert found.unknown == {"t": 1}


def test_what_check_says() -> None:
    text = """format: typed
timestamp: t
metrics: {t: X, n: X, temp: [1]}
"""
    assert decode_spec(text, KINDS)[1].splitlines() == [
        "products/p.yaml:2:1  timestamp: unknown key",
        "products/p.yaml:3:20  metrics.n: 'X' is already 't'; use 'derive' for a copy",
        "products/p.yaml:3:23  metrics.temp: no metric 'temp'",
        "products/p.yaml:3:29  metrics.temp: the metric's name at the source is expected",
    ]
