"""Base values that hold for the rows behind them (`carry`), with SenML as the pattern."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode.columns import Decoded
from operators.decode.decoders import build_decoder
from operators.decode.json_rows import JsonRowsDecoder
from operators.decode.spec import ProductDecode
from tests.decode_json.frames import INGEST_NS, batch, decode_spec, good_spec
from tests.reference import senml_reference as plain

KINDS = {"temp": "number", "on": "boolean", "mode": "string"}
TYPES = tuple(KINDS.items())
PACK = """
format: json
rows: "[*]"
carry: [bn, bt, bu, bv]
device: {join: [bn, u, bu]}
metric: n
value: {first: [v, vb, vs], plus: bv}
timestamp: {path: t, plus: bt, unit: s, relative_below: 268435456}
"""
LABELS = {"bn": -2, "bt": -3, "bu": -4, "bv": -5, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "t": 6}


def decode(text: str, payloads: list[bytes]) -> Decoded:
    spec = good_spec(text, KINDS)
    decoder = build_decoder(ProductDecode("p", spec, TYPES), 64)
    return decoder.decode(batch(payloads), np.arange(len(payloads)), np.empty((0, len(payloads))))


def readings(decoded: Decoded) -> list[list[tuple[str, int | None, str, Any]]]:
    """(device, time, metric, value) of each frame, one after the other."""
    found: list[list[tuple[str, int | None, str, Any]]] = [[] for _ in decoded.status]
    assert decoded.names is not None
    for n, frame in enumerate(decoded.frame.tolist()):
        time = int(decoded.ts_ns[n]) if decoded.time_source[n] == 0 else None
        for column, (name, kind) in enumerate(TYPES):
            if decoded.quality[column, n] == 3:
                continue
            value: Any = decoded.value[column, n]
            value = None if np.isnan(value) else decoded.texts[int(value)] if kind == "string" else value
            found[frame].append((decoded.names[n], time, name, value))
    return found


SECONDS = st.one_of(
    st.integers(-(10**9), 2 * 10**9),
    st.sampled_from([2**28, 2**28 - 1, 1.276020076001e09, -5, 0, 0.25, 1772355600.5, 268435455.75]),
)
TEXT = st.sampled_from(["a", "urn:dev:", "größe", 'q"\n', ""])
UNIT = st.sampled_from(["Cel", "%RH", "lon"])
NUMBER = st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6, allow_nan=False))
RECORD = st.one_of(
    st.fixed_dictionaries(
        {"n": st.just("temp"), "v": NUMBER},
        optional={"bn": TEXT, "bt": SECONDS, "bu": UNIT, "bv": NUMBER, "u": UNIT, "t": SECONDS},
    ),
    st.fixed_dictionaries(
        {"n": st.just("on"), "vb": st.booleans()}, optional={"bv": NUMBER, "t": SECONDS, "bt": SECONDS}
    ),
    st.fixed_dictionaries({"n": st.just("mode"), "vs": TEXT}, optional={"bn": TEXT, "bt": SECONDS}),
    st.fixed_dictionaries({}, optional={"bn": TEXT, "bt": SECONDS, "bu": UNIT, "bv": NUMBER}),
)


def expected(pack: list[dict[str, Any]], now_ns: int = INGEST_NS) -> list[tuple[str, int | None, str, Any]]:
    """As the resolved records have it; records of one device and time are one reading, and one whose
    metric stands there already begins another."""
    found: list[tuple[str, int | None, dict[str, Any]]] = []
    newest: dict[tuple[str, int | None], dict[str, Any]] = {}
    bu = ""
    resolved = iter(plain.resolve(pack, now_ns))
    for record in pack:
        bu = record.get("bu", bu)
        if not {"v", "vb", "vs"} & set(record):
            continue
        one = next(resolved)
        device = one.base + record.get("u", "") + bu
        key = (device, one.time_ns)
        if key not in newest or one.name in newest[key]:
            newest[key] = {}
            found.append((*key, newest[key]))
        newest[key][one.name] = one.value
    return [
        (device, time, name, cells[name]) for device, time, cells in found for name in KINDS if name in cells
    ]


@given(st.lists(st.lists(RECORD, max_size=7), min_size=1, max_size=3), st.booleans())
@settings(deadline=None, max_examples=120, derandomize=True)
def test_packs_as_the_reference_resolves_them(packs: list[Any], escaped: bool) -> None:
    payloads = [json.dumps(pack, ensure_ascii=escaped).encode() for pack in packs]
    decoded = decode(PACK, payloads)
    assert not decoded.status.any(), decoded.detail
    for n, (got, pack) in enumerate(zip(readings(decoded), packs, strict=True)):
        assert got == expected(pack, INGEST_NS + n * 1_000_000)


@given(st.lists(RECORD, max_size=5))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_cbor_with_its_labels_is_the_same(pack: list[dict[str, Any]]) -> None:
    text = PACK.replace("json", "cbor")
    for name, label in LABELS.items():
        for before, behind in ((" ", ","), ("[", ","), (" ", "]"), ("[", "]"), (" ", "\n"), (" ", "}")):
            text = text.replace(f"{before}{name}{behind}", f'{before}"{label}"{behind}')
    frame = [{LABELS[key]: value for key, value in record.items()} for record in pack]
    decoded = decode(text, [cbor2.dumps(frame)])
    assert not decoded.status.any(), decoded.detail
    (got,) = readings(decoded)
    assert got == expected(pack)


def test_wide_rows_carry_metrics_and_times() -> None:
    text = "format: json\nrows: 'v[*]'\ntimestamp: {path: t, unit: s}\ncarry: [t, mode, temp]"
    payload = (
        b'{"v":[{"mode":"run"},{"t":7,"temp":1,"on":true},{"temp":null},{"temp":3,"mode":"stop"},{"t":8}]}'
    )
    decoder = JsonRowsDecoder(good_spec(text, KINDS).layout, TYPES)
    decoded = decoder.decode(batch([payload, b'{"v":[{}]}']), np.arange(2), np.empty((0, 2)))
    assert decoded.ts_ns[1:5].tolist() == [7_000_000_000] * 3 + [8_000_000_000]
    assert decoded.time_source.tolist() == [2, 0, 0, 0, 0, 2]
    temp = decoded.value[0]
    assert decoded.quality[0].tolist() == [3, 0, 2, 0, 0, 3]
    assert [temp[1], temp[3], temp[4]] == [1, 3, 3]
    assert decoded.quality[1].tolist() == [3, 0, 3, 3, 3, 3]
    words = [decoded.texts.get(int(code)) for code in decoded.value[2, :5]]
    assert words == ["run", "run", "run", "stop", "stop"]


def test_a_time_at_the_end_of_its_range_stays_there() -> None:
    frame = b'[{"n":"temp","v":1,"bt":9e9,"t":9e9},{"n":"temp","v":2,"bt":-4e9,"t":-4e9}]'
    (got,) = readings(decode(PACK.replace("268435456", "-9e18"), [frame]))
    assert [time for _, time, _, _ in got] == [9_000_000_000 * 10**9, -4_000_000_000 * 10**9]


WRONG = [
    ("carry: [bx]", "nothing reads 'bx'; leave it away, or name it beside 'rows'"),
    ("carry: [7]", "a path is expected, e.g. data.metrics"),
    ("metric: {join: [bn], first: [n]}", "one of 'first' and 'join' is expected, a list of paths"),
    ("metric: {frist: [n]}", "metric.frist: unknown key; did you mean 'first'?"),
    ("metric: {first: [n], map: {Cel: tmp}}", "no metric 'tmp'; did you mean 'temp'?"),
    ("metric: {first: []}", "1 to 8 paths are expected"),
    ("device: {join: [$.a, n]}", "one path may begin with $., not several"),
    ("device: {first: [n], map: {a: b}}", "'map' goes with 'metric'; devices.csv names the devices"),
    ("value: {plus: bv}", "'first' is missing, a list of paths of which the first that stands is taken"),
    ("timestamp: {path: t, plus: bt, unit: auto}",
     "with 'plus' or 'relative_below' say the unit: s, ms, us or ns"),
    ("timestamp: {path: $.t, plus: bt}", "'plus' goes with a time in the row, not with $."),
    ("timestamp: {path: t, relative_below: soon}",
     "a number is expected, in the unit of the time; SenML has 268435456"),
    ("hub_timestamp: {path: t, plus: bt}", "'plus' goes with 'timestamp' of 'rows'"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "told"), WRONG)
def test_mistakes_are_told(line: str, told: str) -> None:
    key = line.partition(":")[0]
    lines = [one for one in PACK.strip().splitlines() if not one.startswith(f"{key}:")]
    if key != "carry":
        lines = [one for one in lines if not one.startswith("carry")]
    _, problems = decode_spec("\n".join([*lines, line]), KINDS)
    assert told in problems


def test_rows_of_a_binary_layout_take_one_path_and_carry_nothing() -> None:
    text = (
        "format: json\nrows: 'f[*]'\nbinary: d\ndevice: {join: [a, b]}\ncarry: [a]\nfields: {temp: {at: 0}}"
    )
    _, problems = decode_spec(text, KINDS)
    assert problems.splitlines()[:2] == [
        "products/p.yaml:4:1  device: with 'binary' one path is expected",
        "products/p.yaml:5:1  carry: 'carry' goes with rows of JSON, not with 'binary'",
    ]
