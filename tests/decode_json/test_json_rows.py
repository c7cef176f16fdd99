"""Arrays of readings in JSON: wide and tall, against a plain reference and by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode.columns import Decoded
from operators.decode.json_rows import JsonRowsDecoder
from tests.decode_json.frames import INGEST_NS, batch, good_spec
from tests.reference import json_rows_reference as plain

KINDS = {"tempC": "number", "on": "boolean", "mode": "string"}
TYPES = tuple(KINDS.items())
WORDS = ("good", "uncertain", "bad", "absent", "type")
TALL = "format: json\nrows: 'd.\"v[*]'\ndevice: sn\nmetric: id\nvalue: v\nquality: q\ntimestamp: t"
WIDE = "format: json\nrows: '[*].d[*]'\ntimestamp: t\nquality: q.a[1]"


def decode(text: str, payloads: list[bytes]) -> Decoded:
    decoder = JsonRowsDecoder(good_spec(text, KINDS).layout, TYPES)
    rows = np.arange(len(payloads))
    return decoder.decode(batch(payloads), rows, np.empty((0, len(payloads))))


def readings(decoded: Decoded) -> list[list[plain.Reading]]:
    """What was decoded, by frame, as the reference says it."""
    found: list[list[plain.Reading]] = [[] for _ in decoded.status]
    for n, frame in enumerate(decoded.frame.tolist()):
        assert decoded.index[n] == len(found[frame])
        cells: dict[str, tuple[Any, str]] = {}
        for column, (name, kind) in enumerate(TYPES):
            word = WORDS[decoded.quality[column, n]]
            value: Any = decoded.value[column, n]
            if np.isnan(value):
                value = None
            elif kind == "string":
                value = decoded.texts[int(value)]
            if word != "absent":
                cells[name] = (value, word)
        time = int(decoded.ts_ns[n]) // 1_000_000 if decoded.time_source[n] == 0 else None
        found[frame].append(plain.Reading(decoded.names[n] if decoded.names else None, time, cells))
    return found


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["v", "q", "tempC", 'a"b']), st.integers(0, 3), max_size=2),
)
QUALITIES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(["good", "Bad_OutOfService", "UncertainInitialValue", "?"]),
    st.sampled_from([0, 1 << 30, 1 << 31, 3 << 30, 192, -2147483648, -1]),
    st.just([1]),
)
TIMES = st.sampled_from([0, 1_772_355_600_000, 1_772_355_600_001])


@st.composite
def _text(draw: st.DrawFn, value: Any) -> bytes:
    """The same JSON in one of the many ways to write it."""
    layout = draw(st.sampled_from([None, 1]))
    ascii_only = draw(st.booleans())
    return json.dumps(value, ensure_ascii=ascii_only, indent=layout).encode("utf-8", "surrogatepass")


ELEMENT = st.fixed_dictionaries(
    {"id": st.sampled_from([*KINDS, "zz", 7]), "sn": st.sampled_from(["a", "b", "größe\n", 12])},
    optional={"v": VALUES, "q": QUALITIES, "t": TIMES, "x": VALUES},
)


@given(st.lists(st.lists(ELEMENT, max_size=6), min_size=1, max_size=3), st.data())
@settings(deadline=None, max_examples=80, derandomize=True)
def test_tall_payloads_as_the_reference_has_them(frames: list[Any], data: st.DataObject) -> None:
    payloads = [data.draw(_text({"x": [{}], "d": {"w": 1, '"v': one}})) for one in frames]
    decoded = decode(TALL, payloads)
    assert not decoded.status.any(), decoded.detail
    spec = {"rows": ["d", '"v', "*"], "device": ["sn"], "metric": ["id"], "value": ["v"]}
    spec |= {"quality": ["q"], "timestamp": ["t"]}
    expected = [plain.rows(one, spec, KINDS) for one in payloads]
    for frame in expected:
        for reading in frame:
            for name, (_, word) in list(reading.cells.items()):
                if word == "absent":
                    del reading.cells[name]
    assert readings(decoded) == expected


@given(
    st.lists(
        st.lists(
            st.fixed_dictionaries(
                {}, optional={"t": TIMES, "tempC": VALUES, "on": VALUES, "mode": VALUES, "é": VALUES}
            ),
            max_size=4,
        ),
        max_size=3,
    ),
    st.data(),
)
@settings(deadline=None, max_examples=80, derandomize=True)
def test_wide_payloads_as_the_reference_has_them(groups: list[Any], data: st.DataObject) -> None:
    for group in groups:
        for element in group:
            if data.draw(st.booleans()):
                element["q"] = {"a": [5, data.draw(QUALITIES)]}
    frame = [{"n": 1, "d": group} for group in groups] + [{"other": []}, 5]
    payload = data.draw(_text(frame))
    decoded = decode(WIDE, [payload])
    assert not decoded.status.any(), decoded.detail
    spec = {"rows": ["*", "d", "*"], "quality": ["q", "a", 1], "timestamp": ["t"]}
    assert readings(decoded) == [plain.rows(payload, spec, KINDS)]


REJECTS = [
    (b'{"d":{"\\"v":{}}}', "d.\"v: an array is expected"),
    (b'{"d":[]}', "d.\"v: an array is expected"),
    (b'{"d":{"\\"v":[{"id":"on"},7]}}', "d.\"v[1]: an object is expected at byte 25"),
    (b'{"d":{"\\"v":[{"id":"on","t":"soon"}]}}',
     "d.\"v[0]: a time as a number or an ISO 8601 text is expected at byte 28"),
    (b'{"d":{"\\"v":[{"v":1}]}}', "d.\"v[0]: id: a metric's name is expected"),
    (b'{"d":{"\\"v":[{"v":1}}}', "',' or ']' is expected at byte 20"),
    (b'{"d":{"\\"v":[{"id":"on","x":1e999}]}}', "a number beyond the range of a double at byte 28"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "told"), REJECTS)
def test_a_wrong_element_rejects_its_whole_frame(payload: bytes, told: str) -> None:
    good = b'{"d":{"\\"v":[{"id":"tempC","v":1,"sn":"a"},{"id":"tempC","v":2,"sn":"b"}]}}'
    decoded = decode(TALL, [good, payload, good])
    assert decoded.status.tolist()[0] == decoded.status.tolist()[2] == 0
    assert decoded.detail == {1: told}
    assert decoded.frame.tolist() == [0, 0, 2, 2]
    assert decoded.value[0].tolist() == [1, 2, 1, 2]


def test_device_and_time_may_stand_once_for_the_frame() -> None:
    text = "format: json\nrows: 'd[*]'\ndevice: $.meta.sn\ntimestamp: {path: $.at, unit: s}\n"
    text += "metrics: {tempC: '[1]'}"
    decoded = decode(text, [b'{"meta":{"sn":7},"at":2,"d":[[0,1.5],[0]]}', b'{"d":[[0,1]]}'])
    assert decoded.names == ["7", "7", ""]
    assert decoded.ts_ns.tolist() == [2_000_000_000, 2_000_000_000, INGEST_NS + 1_000_000]
    assert decoded.time_source.tolist() == [0, 0, 2]
    assert decoded.quality[0].tolist() == [0, 3, 0]


def test_a_row_without_a_time_has_that_of_the_hub() -> None:
    payload = b'{"hub_timestamp":5,"v":[{"t":"2026-03-01T09:00:00Z","tempC":1},{"tempC":2}]}'
    decoded = decode("format: json\nrows: 'v[*]'\ntimestamp: t", [payload])
    assert decoded.ts_ns.tolist() == [INGEST_NS, 5_000_000]
    assert decoded.time_source.tolist() == [0, 1]
    assert decoded.unknown == {}


def test_what_is_not_declared_is_counted() -> None:
    decoded = decode(TALL, [b'{"d":{"\\"v":[{"id":"zz","v":1},{"id":"zz","v":1},{"id":"on","v":true}]}}'])
    assert decoded.unknown == {"zz": 2}
    assert decoded.unknown_frame is not None
    assert decoded.unknown_frame.tolist() == [1]
    assert len(decoded.frame) == 1
