"""Rows of CSV files to columns, and binary parts within JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import ABSENT, BAD, GOOD, TYPE_BREACH, Address
from operators.decode.columns import Decoded
from operators.decode.csv_decoder import CsvDecoder
from operators.decode.json_binary import JsonBinaryDecoder, unpack_text
from operators.rejects import Reason
from tests.decode_json.frames import INGEST_NS, batch, good_spec

KINDS = {"tempC": "number", "on": "boolean", "mode": "string"}


def decode(section: str, rows: list[bytes], header: str | None = "t,temp,on,mode") -> Decoded:
    decoder = CsvDecoder(good_spec(section, KINDS).layout, tuple(KINDS.items()))
    address = Address("drops", "a.csv", -1, () if header is None else (("csv", header),))
    frames = batch(rows, addresses=(address,))
    return decoder.decode(frames, np.arange(len(rows), dtype=np.int64), np.empty((0, len(rows))))


COLUMNS = "format: csv\ntimestamp: t\ncolumns: {tempC: temp, on: on, mode: mode}\n"


def test_cells_by_type() -> None:
    found = decode(
        COLUMNS + "missing: [NA]",
        [b'2026-03-01T09:00:00Z, 1.5e1 ,TRUE,"a ""b"",c"', b"1772355600000,,0,", b"1.5,NA,2,NA", b",x,,"],
    )
    assert found.quality.T.tolist() == [
        [GOOD, GOOD, GOOD],
        [ABSENT, GOOD, ABSENT],
        [BAD, TYPE_BREACH, BAD],
        [TYPE_BREACH, ABSENT, ABSENT],
    ]
    assert found.value[0, 0] == 15.0
    assert found.value[1, :2].tolist() == [1.0, 0.0]
    assert found.texts[int(found.value[2, 0])] == 'a "b",c'
    assert found.ts_ns.tolist() == [INGEST_NS, INGEST_NS, 1_500_000, INGEST_NS + 3_000_000]
    assert found.time_source.tolist() == [0, 0, 0, 2]


REFUSED = [
    (b"1,2", "malformed", -1, "2 columns where the header line has 4"),
    (b'1,"2,x,y', "malformed", -1, "not CSV: unexpected end of data"),
    (b"\xff,1,1,1", "encoding", 0, "not valid UTF-8 at byte 0"),
    (b"soon,1,1,1", "malformed", -1, "column 't': 'soon' is no time (ISO 8601 or a number)"),
    (b"1,NaN,1,1", "bad_number", -1, "column 'temp': 'NaN' is no usable number"),
    (b"1,1e999,1,1", "bad_number", -1, "column 'temp': '1e999' is beyond the range of a double"),
]


@pytest.mark.parametrize(("row", "reason", "place", "message"), REFUSED)
def test_a_broken_row_is_told_and_hurts_no_other(row: bytes, reason: str, place: int, message: str) -> None:
    found = decode(COLUMNS, [b"1,1,1,1", row, b"1,2,1,1"])
    assert found.status.tolist() == [0, Reason[reason], 0]
    assert (int(found.place[1]), found.detail[1]) == (place, message)
    assert found.frame.tolist() == [0, 2]
    assert found.value[0].tolist() == [1.0, 2.0]


def test_decimal_comma_places_and_a_zone_with_daylight_saving() -> None:
    section = (
        'format: csv\nseparator: ";"\ndecimal: ","\n'
        'timestamp: {column: 1, format: "%d.%m.%Y %H:%M", zone: Europe/Berlin}\ncolumns: {tempC: 2}'
    )
    found = decode(section, [b"01.03.2026 10:00;1,5", b"01.07.2026 11:00;-2", b"01.07.2026 11:00;1.5"], None)
    assert found.value[0, :2].tolist() == [1.5, -2.0]
    assert found.quality[0, 2] == TYPE_BREACH
    assert found.ts_ns[0] == INGEST_NS  # 09:00Z
    assert found.ts_ns[1] == INGEST_NS + 122 * 86_400_000_000_000


def test_without_named_columns_the_header_line_names_metrics() -> None:
    found = decode("format: csv\ntimestamp: t", [b"1,5,true,extra,run"], "t,tempC,on,other,mode")
    assert (found.value[0, 0], found.value[1, 0], found.texts[int(found.value[2, 0])]) == (5.0, 1.0, "run")
    assert found.unknown == {"other": 1}
    found = decode("format: csv", [b"1"], None)
    assert found.detail == {0: "the file has no header line, and the product names no columns"}
    found = decode("format: csv\ncolumns: {tempC: temp}", [b"1"], "value")
    assert found.detail == {0: "the header line has no column 'temp'"}


def test_derive_over_an_internal_column() -> None:
    section = (
        "format: csv\ncolumns: {_f: value}\nderive:\n"
        "  tempC: (_f - 32) * 5 / 9\n  mode: if(tempC > 20, 'hot', 'cold')"
    )
    found = decode(section, [b"212", b"", b"x", b"32"], "value")
    assert found.value[0].tolist()[0] == 100.0
    assert found.quality[0].tolist() == [GOOD, ABSENT, BAD, GOOD]
    assert [found.texts.get(int(v)) for v in found.value[2, [0, 3]]] == ["hot", "cold"]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(
        st.lists(
            st.one_of(st.text(max_size=6), st.floats(allow_nan=False, allow_infinity=False)),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_rows_written_by_the_csv_module_are_read_back(rows: list[list[Any]]) -> None:
    import csv
    import io

    frames = []
    for row in rows:
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(row)
        frames.append(out.getvalue().encode("utf-8", "replace"))
    decoder = CsvDecoder(
        good_spec("format: csv\ncolumns: {a: 1, b: 2}", {"a": "string", "b": "string"}).layout,
        (("a", "string"), ("b", "string")),
    )
    found = decoder.decode(batch(frames), np.arange(len(rows), dtype=np.int64), np.empty((0, len(rows))))
    readings = {int(frame): at for at, frame in enumerate(found.frame)}
    for number, row in enumerate(rows):
        cells = [str(cell).encode("utf-8", "replace").decode().strip() for cell in row]
        for metric, cell in enumerate(cells):
            at = readings[number]
            if cell:
                assert found.texts[int(found.value[metric, at])] == cell
            else:
                assert found.quality[metric, at] == ABSENT


def test_text_is_hexadecimal_before_it_is_base64() -> None:
    assert unpack_text(b"01 fF-0a:3B", "auto") == bytes([1, 255, 10, 59])
    assert unpack_text(b"0x0102", "hex") == bytes([1, 2])
    assert unpack_text(b"AQI=", "auto") == bytes([1, 2])
    assert unpack_text(b"-_8", "base64") == bytes([251, 255])
    assert unpack_text(b"abcd", "base64") == base64.b64decode(b"abcd")
    assert unpack_text(b"abc", "hex") is None
    assert unpack_text(b"not base64!", "auto") is None
    assert unpack_text(b"", "auto") == b""


def test_a_binary_part_goes_on_into_a_layout() -> None:
    spec = good_spec(
        "format: json\nbinary: data.bin\nfields: {tempC: {at: 0, as: s16, scale: 0.1}}", {"tempC": "number"}
    )
    decoder = JsonBinaryDecoder(spec.layout, (("tempC", "number"),))
    parts = ["00FF", base64.b64encode(b"\xff\x9c\x00").decode(), "00", None, 7, "zz!"]
    frames = batch(
        [
            json.dumps({"device_timestamp": 1000 + n, "data": {"bin": part}}).encode()
            for n, part in enumerate(parts)
        ]
        + [b"{"]
    )
    found = decoder.decode(frames, np.arange(7, dtype=np.int64), np.empty((0, 7)))
    assert [Reason(int(s)).name if s else "" for s in found.status] == [
        "",
        "",
        "short",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
    ]
    assert found.frame.tolist() == [0, 1]
    assert found.value[0].tolist() == [25.5, -10.0]
    assert found.ts_ns.tolist() == [1_000_000_000, 1_001_000_000]
    assert found.time_source.tolist() == [0, 0]
    assert found.detail[5] == "data.bin: a text in hexadecimal or base64 is expected"
