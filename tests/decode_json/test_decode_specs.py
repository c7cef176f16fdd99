"""`decode:` sections of JSON and CSV: what is taken, and what every mistake is told."""

from __future__ import annotations

import pytest

from operators.decode.csv_spec import CsvSpec, TimeColumn
from operators.decode.json_spec import JsonSpec, TimePath, parse_path, path_text
from tests.decode_json.frames import decode_spec, good_spec

KINDS = {"tempC": "number", "mode": "string"}
WHERE = "products/p.yaml:"


def test_the_standard_payload_needs_no_more_than_its_format() -> None:
    assert good_spec("format: json", KINDS).layout == JsonSpec(
        timestamp=TimePath(("device_timestamp",)),
        hub_timestamp=TimePath(("hub_timestamp",)),
        container=("data", "metrics"),
    )


def test_json_paths() -> None:
    spec = good_spec(
        "format: json\ntimestamp: {path: t.at, unit: auto}\nhub_timestamp: null\nnodes: nodes\n"
        "metrics: {tempC: 'data.t[0].v', _raw: '[1].`odd.name`'}",
        KINDS,
    )
    assert spec.layout == JsonSpec(
        timestamp=TimePath(("t", "at"), "auto"),
        hub_timestamp=None,
        container=None,
        fields=(("tempC", ("data", "t", 0, "v")), ("_raw", (1, "odd.name"))),
        internals=("_raw",),
    )
    assert spec.plain["metrics"]["tempC"] == "data.t[0].v"


def test_csv_columns() -> None:
    spec = good_spec(
        'format: csv\nseparator: ";"\ndecimal: ","\nmissing: [NA, "-"]\n'
        "timestamp: {column: 1, format: '%d.%m.%Y %H:%M', zone: Europe/Berlin}\n"
        "columns: {tempC: Temp, mode: 3}",
        KINDS,
    )
    assert spec.layout == CsvSpec(
        timestamp=TimeColumn(1, "%d.%m.%Y %H:%M", "ms", "Europe/Berlin"),
        columns=(("tempC", "Temp"), ("mode", 3)),
        separator=";",
        decimal=",",
        missing=("NA", "-"),
    )


PROBLEMS = [
    ("json", "1:1  a mapping is expected; write decode: {format: json}"),
    ("order: be", "1:1  'format' is missing; one of json, csv, binary, msgpack, cbor, typed"),
    ("format: jsn", "1:9  format: unknown format 'jsn'; did you mean 'json'?"),
    (
        "udf: a.py:f",
        "1:6  udf: a file of the plant and a function in it are expected, e.g. products/torano.py:decode",
    ),
    ("format: json\nmetric: x", "2:1  metric: 'metric' goes with 'rows: \"path[*]\"'"),
    (
        "format: json\nrows: v",
        '2:7  rows: [*] says which array holds the readings, e.g. "v[*]"',
    ),
    (
        "format: json\nrows: 'v[*]'\nmetric: id",
        "2:1  rows: 'metric' and 'value' stand together; 'value' is missing",
    ),
    (
        "format: json\nrows: 'v[*]'\nmetric: id\nvalue: v\nmetrics: x",
        "5:10  metrics: either 'metrics' or 'metric' and 'value'",
    ),
    (
        "format: json\nrows: 'v[*]'\nquality: $.q",
        "3:1  quality: stands in the row; only device and timestamp may begin with $.",
    ),
    ("format: json\ntimestmp: x", "2:1  timestmp: unknown key; did you mean 'timestamp'?"),
    (
        "format: json\nmetrics: {tempc: a}",
        "2:11  metrics.tempc: no metric 'tempc'; did you mean 'tempC'?",
    ),
    (
        "format: json\nmetrics: {tempC: a..b}",
        "2:18  metrics.tempC: '..b' is no part of a path; write names with dots and [0] for a place",
    ),
    (
        "format: json\nmetrics: {tempC: 'a[*]'}",
        "2:18  metrics.tempC: [*] has no place here; one place of an array is written [0]",
    ),
    ("format: json\nmetrics: 5", "2:10  metrics: a path is expected, e.g. data.metrics"),
    (
        "format: json\ntimestamp: {path: t, unit: m}",
        "2:28  timestamp.unit: unknown unit 'm'; one of auto, s, ms, us, ns",
    ),
    ("format: json\ntimestamp: {unit: s}", "2:12  timestamp: 'path' is missing"),
    ("format: json\nencoding: hex", "2:11  encoding: 'encoding' goes with 'binary'"),
    ("format: csv\nseparator: ';;'", '2:12  separator: one character is expected, in quotes, e.g. ";"'),
    ("format: csv\ncolumns: {tempC: 0}", "2:18  columns.tempC: columns are counted from 1"),
    (
        "format: csv\ntimestamp: {column: t, zone: Mars}",
        "2:30  timestamp.zone: unknown time zone 'Mars'; e.g. UTC or Asia/Seoul",
    ),
    (
        "format: csv\ntimestamp: {column: t, format: 'soon'}",
        '2:32  timestamp.format: a time format is expected, e.g. "%Y-%m-%d %H:%M:%S", or iso',
    ),
    (
        "format: json\nderive: {tempC: '_f + 1'}",
        "2:18  derive.tempC: no metric '_f' here\n    _f + 1\n    ^~",
    ),
    (
        "format: json\nderive: {tempC: 'rate(tempC)'}",
        "2:18  derive.tempC: a derived value sees one reading alone, not the past\n"
        "    rate(tempC)\n    ^~~~~~~~~~~",
    ),
    (
        "format: json\nderive: {tempC: 'param.low * 2'}",
        "2:18  derive.tempC: no numeric parameter 'low'\n    param.low * 2\n    ^~~~~~~~~",
    ),
    ("format: json\nderive: {tempC: '1 +'}", None),
]


@pytest.mark.parametrize(("text", "told"), PROBLEMS)
def test_mistakes_are_told_with_place_and_mend(text: str, told: str | None) -> None:
    spec, problems = decode_spec(text, KINDS)
    assert spec is None
    if told is not None:
        assert problems == WHERE + told
    else:
        assert problems.startswith(WHERE)


@pytest.mark.parametrize("text", ["a", "a.b", "a[0]", "[3].x[1]", "`a.b`.c", "größe.x y"])
def test_a_path_is_written_as_it_was_read(text: str) -> None:
    path = parse_path(text)
    assert isinstance(path, tuple)
    assert path_text(path) == text


@pytest.mark.parametrize("text", ["", ".a", "a.", "a.[0]", "a[x]", "a[-1]", "a`b`", "a." * 100 + "a", "`a"])
def test_texts_that_are_no_paths(text: str) -> None:
    assert isinstance(parse_path(text), str)
