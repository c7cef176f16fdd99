"""JSON frames to columns, against a plain reference over Python's json."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import ABSENT, BAD, GOOD, TYPE_BREACH
from operators.decode.columns import Decoded
from operators.decode.json_decoder import JsonDecoder
from operators.decode.json_kernels import W_NO_OBJECT, WHY
from operators.decode.json_spec import JsonSpec, TimePath
from operators.rejects import Reason
from operators.text import text_code
from tests.decode_json.frames import INGEST_NS, batch
from tests.reference import json_reference as plain

METRICS = (
    ("tempC", "number"),
    ("rpm", "integer"),
    ("on", "boolean"),
    ("mode", "string"),
    ("größe", "number"),
)
DECODER = JsonDecoder(JsonSpec(), METRICS)


def decode(decoder: JsonDecoder, payloads: list[bytes]) -> Decoded:
    rows = np.arange(len(payloads), dtype=np.int64)
    return decoder.decode(batch(payloads), rows, np.empty((0, len(payloads))))


def cell(found: Decoded, metric: int, reading: int, kind: str) -> Any:
    quality, value = found.quality[metric, reading], float(found.value[metric, reading])
    if quality != GOOD:
        assert np.isnan(value)
        return {ABSENT: plain.ABSENT, BAD: plain.NULL, TYPE_BREACH: plain.BREACH}[int(quality)]
    return ("text", found.texts[int(value)]) if kind == "string" else value


def compare(
    decoder: JsonDecoder, payloads: list[bytes], metrics: Any, *, reasons: bool, **paths: Any
) -> None:
    found = decode(decoder, payloads)
    readings = {int(frame): at for at, frame in enumerate(found.frame)}
    unknown: dict[str, int] = {}
    for frame, payload in enumerate(payloads):
        try:
            when, source, values, names = plain.reading(payload, list(metrics), **paths)
        except plain.Refused as refused:
            wanted = refused.reason
        else:
            wanted = ""
        if wanted:
            assert found.status[frame] != 0, payload
            assert frame not in readings
            if reasons:
                assert Reason(int(found.status[frame])).name == wanted, payload
            continue
        assert found.status[frame] == 0, (payload, found.detail.get(frame))
        at = readings[frame]
        assert found.time_source[at] == source, payload
        expected = INGEST_NS + frame * 1_000_000 if when is None else when
        assert found.ts_ns[at] == expected, payload
        for metric, (name, kind) in enumerate(metrics):
            assert cell(found, metric, at, kind) == values[name], (payload, name)
        for name in names:
            unknown[name] = unknown.get(name, 0) + 1
    for name, count in unknown.items():  # frames refused late may have counted names, too
        assert found.unknown[name] >= count


BLANK = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"])
NUMBERS: st.SearchStrategy[str] = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(0, 10**40).map(str),
    st.tuples(st.integers(0, 10**22), st.integers(-330, 308)).map(lambda p: f"{p[0]}e{p[1]}"),
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**25)).map(lambda p: f"-{p[0]}.{p[1]:026d}"),
    st.sampled_from(
        ["0", "-0", "0.0", "1E5", "1e+5", "5e-324", "2.2250738585072011e-308", "0e999", "1e-999"]
    ),
)
ODD_NUMBERS = st.sampled_from(
    ["01", "1.", ".5", "+1", "-", "1e", "1e400", "-1e999", "NaN", "Infinity", "-Infinity"]
)
LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def quoted(draw: st.DrawFn, text: str | None = None) -> str:
    """A JSON text, some of its letters escaped."""
    found = ""
    for letter in draw(LETTERS) if text is None else text:
        way = draw(st.integers(0, 9))
        if way == 0:
            units = letter.encode("utf-16-be")
            found += "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))
        else:
            found += json.dumps(letter, ensure_ascii=way == 1)[1:-1]
    return f'"{found}"'


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    way = draw(st.integers(0, 9))
    if way <= 4:
        return draw(NUMBERS)
    if way <= 6:
        return draw(quoted())
    if way == 7 or depth == 0:
        return str(draw(st.sampled_from(["true", "false", "null"])))
    if way == 8:
        return "[" + ",".join(draw(st.lists(values(depth=depth - 1), max_size=3))) + "]"
    return draw(objects(st.sampled_from(["a", "tempC", "data", ""]), values(depth=depth - 1)))


@st.composite
def objects(draw: st.DrawFn, names: st.SearchStrategy[str], inside: st.SearchStrategy[str]) -> str:
    members = []
    for name in draw(st.lists(names, max_size=6)):
        key = draw(quoted(name))
        members.append(f"{draw(BLANK)}{key}{draw(BLANK)}:{draw(BLANK)}{draw(inside)}{draw(BLANK)}")
    return "{" + ",".join(members) + draw(BLANK) + "}"


METRIC_NAMES = st.sampled_from([name for name, _ in METRICS] + ["other", "temp", "tempCC", "größ"])
TIMES = st.one_of(
    st.integers(-(10**19), 10**19).map(str),
    st.integers(10**12, 2 * 10**12).map(str),
    st.tuples(st.integers(0, 10**13), st.integers(0, 10**9)).map(lambda p: f"{p[0]}.{p[1]}"),
    st.just("null"),
)


@st.composite
def standard(draw: st.DrawFn) -> str:
    box = objects(METRIC_NAMES, values())
    data = objects(st.sampled_from(["metrics", "metrics", "bin"]), st.one_of(box, box, box, st.just("null")))
    members = []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(["data", "data", "device_timestamp", "hub_timestamp", "x"]))
        inside = data if name == "data" else TIMES if "time" in name else values()
        members.append(f"{draw(quoted(name))}:{draw(BLANK)}{draw(inside)}{draw(BLANK)}")
    return draw(BLANK) + "{" + ",".join(members) + "}" + draw(BLANK)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(standard().map(lambda text: text.encode("utf-8")), min_size=1, max_size=20))
def test_standard_payloads_as_the_plain_reference(payloads: list[bytes]) -> None:
    compare(DECODER, payloads, METRICS, reasons=True)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(standard(), min_size=1, max_size=8), st.data())
def test_damaged_payloads_are_refused_where_the_plain_reference_refuses(texts: list[str], data: Any) -> None:
    payloads = []
    for text in texts:
        raw = bytearray(text.encode("utf-8"))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(raw)))
            way = data.draw(st.integers(0, 2))
            if way == 0:
                raw[at : at + 1] = b""
            elif way == 1:
                raw[at:at] = data.draw(
                    st.sampled_from([b'"', b"{", b"]", b",", b"\\", b"0", b"\xff", b"\x01", b"e"])
                )
            else:
                raw = raw[:at]
        payloads.append(bytes(raw) or b" ")
    compare(DECODER, payloads, METRICS, reasons=False)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.one_of(NUMBERS, ODD_NUMBERS), min_size=1, max_size=60))
def test_numbers_are_the_nearest_doubles(numbers: list[str]) -> None:
    payloads = [f'{{"data":{{"metrics":{{"tempC":{number}}}}}}}'.encode() for number in numbers]
    payloads += [f'{{"x":{number}}}'.encode() for number in numbers]
    compare(DECODER, payloads, METRICS, reasons=True)


def test_numbers_at_the_borders_of_the_fast_ways() -> None:
    numbers = ["9007199254740992", "9007199254740993", "9007199254740993e1", "9007199254740991e22", "1e23"]
    numbers += ["8.5e-23", "1.7976931348623157e308", "1.7976931348623158e308", "2.2250738585072014e-308"]
    numbers += ["4.9e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "123456789012345678e-5"]
    numbers += [f"{(1 << 52) + 1}.5", f"{(1 << 53) - 1}.5", "0.1", "0.3", "85.0", "1" + "0" * 308]
    payloads = [f'{{"data":{{"metrics":{{"tempC":{number}}}}}}}'.encode() for number in numbers]
    found = decode(DECODER, payloads)
    assert found.value[0].tolist() == [float(number) for number in numbers]


FIELDS = {"tempC": ("d", 1, "v"), "rpm": ("d", 0), "on": ("meta", "on"), "mode": ("meta", "a.b")}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_named_paths_as_the_plain_reference(data: Any) -> None:
    spec = JsonSpec(timestamp=TimePath(("meta", "t"), "auto"), container=None, fields=tuple(FIELDS.items()))
    decoder = JsonDecoder(spec, METRICS)
    meta = objects(st.sampled_from(["on", "a.b", "t"]), st.one_of(values(depth=1), TIMES))
    element = objects(st.sampled_from(["v", "w"]), values(depth=1))
    array = st.lists(st.one_of(element, values(depth=0)), max_size=3).map(
        lambda items: f"[{','.join(items)}]"
    )
    frame = objects(st.sampled_from(["d", "meta", "z"]), st.one_of(array, meta))
    payloads = [text.encode() for text in data.draw(st.lists(frame, min_size=1, max_size=12))]
    compare(
        decoder,
        payloads,
        METRICS,
        reasons=True,
        container=None,
        fields=FIELDS,
        timestamp=("meta", "t"),
        unit="auto",
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.datetimes(), st.sampled_from(["", "Z", "+09:00", "-0330", "+05"]), st.sampled_from(["T", " "]))
def test_iso_times(moment: Any, zone: str, between: str) -> None:
    text = moment.isoformat(between) + zone
    payload = json.dumps({"device_timestamp": text}).encode()
    found = decode(DECODER, [payload])
    assert found.status[0] == 0
    when = plain.time(text, "ms")
    assert when is not None
    assert found.ts_ns[0] == max(plain.EARLIEST, min(plain.LATEST, when))


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-02-30T00:00:00Z", "2026-03-01", "2026-03-01T24:00:00Z", "2026-03-01T09:00:00+0", "",
     "2026-03-01T09:00:00.Z", "2026-03-01T09:00:00Zx", "2026-13-01T09:00:00Z", "2026-03-01T09:61:00Z"],
)  # fmt: skip
def test_texts_that_are_no_times(text: str) -> None:
    found = decode(DECODER, [json.dumps({"device_timestamp": text}).encode()])
    assert Reason(int(found.status[0])) is Reason.malformed
    assert found.place[0] == 21
    assert (
        found.detail[0] == "device_timestamp: a time as a number or an ISO 8601 text is expected at byte 21"
    )


HOSTILE = [
    (b"", "empty", -1),
    (b" ", "malformed", 1),
    (b"{", "malformed", 1),
    (b"\xef\xbb\xbf{}", "malformed", 0),
    (b'{"a":1,}', "malformed", 7),
    (b"{'a':1}", "malformed", 1),
    (b'{"a":1}{"a":2}', "malformed", 7),
    (b'{"a":"\x01"}', "malformed", 6),
    (b'{"a":"\\x"}', "malformed", 6),
    (b'{"a":01}', "malformed", 5),
    (b'{"a":tru}', "malformed", 5),
    (b'{"a":"\\ud800"}', "encoding", 6),
    (b'{"a":"\\udc00\\ud800"}', "encoding", 6),
    (b'{"a":"\xff"}', "encoding", 6),
    (b'{"a":"\xc0\x80"}', "encoding", 6),
    (b'{"a":"\xed\xa0\x80"}', "encoding", 6),
    (b'{"a":"\xf4\x90\x80\x80"}', "encoding", 6),
    (b'{"a":"\xe2\x82', "encoding", 6),
    (b'{"a":NaN}', "bad_number", 5),
    (b'{"a":-Infinity}', "bad_number", 5),
    (b'{"a":1e309}', "bad_number", 5),
    (b'{"a":' + b"9" * 400 + b"}", "bad_number", 5),
    (b"[" * 65, "too_deep", 64),
    (b"[" * 200_000, "too_deep", 64),
    (b'{"a":' * 65, "too_deep", 320),
    (b"5", "malformed", 0),
    (b"null", "malformed", 0),
    (b"[]", "malformed", 0),
    (b'{"data":{"metrics":[1]}}', "malformed", 19),
    (b'{"data":{"metrics":5}}', "malformed", 19),
]


def test_hostile_frames_are_refused_with_their_place_and_hurt_no_other() -> None:
    good = b'{"data":{"metrics":{"tempC":1}}}'
    payloads = [part for payload, _, _ in HOSTILE for part in (payload, good)]
    found = decode(DECODER, payloads)
    for at, (payload, reason, place) in enumerate(HOSTILE):
        told = (Reason(int(found.status[2 * at])).name, int(found.place[2 * at]))
        assert told == (reason, place), payload[:60]
    assert found.frame.tolist() == list(range(1, len(payloads), 2))
    assert found.value[0].tolist() == [1.0] * len(HOSTILE)
    assert found.detail[payloads.index(b"[]")] == f"{WHY[W_NO_OBJECT]} at byte 0"


def test_sixty_four_levels_are_taken() -> None:
    payload = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert decode(DECODER, [payload]).status[0] == 0


def test_a_member_that_stands_twice_counts_once_and_the_last_wins() -> None:
    payloads = [
        b'{"data":{"metrics":{"tempC":1,"rpm":2}},"data":{"metrics":{"rpm":3}}}',
        b'{"data":{"metrics":{"tempC":1,"tempC":null}}}',
        b'{"data":{"metrics":{"tempC":0.12345678901234567890,"tempC":2}}}',
        b'{"data":{"metrics":{"mode":"\\u0061","mode":"b"}}}',
        b'{"data":{"metrics":{"tempC":1}},"data":7}',
        b'{"device_timestamp":1,"device_timestamp":null}',
    ]
    compare(DECODER, payloads, METRICS, reasons=True)


def test_more_different_texts_and_names_than_are_remembered() -> None:
    payloads = [
        json.dumps({"data": {"metrics": {"mode": f"text {n}", f"name {n}": n, "same": 1}}}).encode()
        for n in range(3000)
    ]
    found = decode(DECODER, payloads)
    texts = [found.texts[int(code)] for code in found.value[3]]
    assert texts == [f"text {n}" for n in range(3000)]
    assert all(code == text_code(text) for code, text in found.texts.items())
    assert found.unknown["same"] == 3000
    assert sum(found.unknown.values()) == 6000


def test_a_frame_of_many_values_for_python_to_finish() -> None:
    number = "0.1234567890123456789"
    payload = (
        '{"x":[' + ",".join(["1e305"] * 60_000) + f'],"data":{{"metrics":{{"tempC":{number}}}}}}}'
    ).encode()
    found = decode(DECODER, [payload, payload])
    assert found.value[0].tolist() == [float(number)] * 2


def test_a_text_first_seen_in_a_refused_frame_is_told_for_the_frames_behind_it() -> None:
    good = b'{"data": {"metrics": {"mode": "fault"}}}'
    found = decode(DECODER, [good + b"x", good])
    assert list(found.status) == [Reason.malformed, 0]
    assert cell(found, 3, 0, "string") == ("text", "fault")
