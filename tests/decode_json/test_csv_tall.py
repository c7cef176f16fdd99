"""CSV beyond one number a cell: several rows a frame, tall files, times of clocks that are put back,
digits in groups. Python's own csv and zoneinfo are the reference."""

from __future__ import annotations

import csv
import datetime
import io
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import ABSENT, BAD, GOOD, UNCERTAIN, Address
from operators.decode.columns import Decoded
from operators.decode.csv_decoder import CsvDecoder
from operators.document import Problems, load_yaml
from operators.rejects import Reason
from tests.decode_json.frames import INGEST_NS, batch, good_spec

KINDS = {"tempC": "number", "rpm": "number", "on": "boolean", "mode": "string"}
SECOND = 1_000_000_000


def decode(section: str, frames: list[bytes], header: str | None, kinds: dict[str, str] = KINDS) -> Decoded:
    decoder = CsvDecoder(good_spec(section, kinds).layout, tuple(kinds.items()))
    address = Address("drops", "a.csv", -1, () if header is None else (("csv", header),))
    found = batch(frames, addresses=(address,))
    return decoder.decode(found, np.arange(len(frames), dtype=np.int64), np.empty((0, len(frames))))


def test_a_frame_of_several_rows_is_several_readings() -> None:
    found = decode(
        "format: csv\ntimestamp: {column: t, unit: s}\ncolumns: {tempC: temp, mode: m}",
        [b'1,10,a\r\n2,11,"b\nc"\n\n3,12,', b"4,13,d\n", b"5,14,e\n6,NaN,f", b"7,15,g\n8,16"],
        "t,temp,m",
    )
    assert found.frame.tolist() == [0, 0, 0, 1]
    assert found.index.tolist() == [0, 1, 2, 0]
    assert found.ts_ns.tolist() == [SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND]
    assert found.value[0].tolist() == [10, 11, 12, 13]
    assert [found.texts.get(int(code)) if code == code else None for code in found.value[3]] == [
        "a",
        "b\nc",
        None,
        "d",
    ]
    assert found.quality[3].tolist() == [GOOD, GOOD, ABSENT, GOOD]
    assert found.detail == {
        2: "row 2 of 2: column 'temp': 'NaN' is no usable number",
        3: "row 2 of 2: 2 columns where the header line has 3",
    }


TALL = "format: csv\ntimestamp: {column: t, unit: s}\ndevice: d\nmetric: m\nvalue: v\nquality: q"


def test_rows_of_one_device_and_time_are_one_reading() -> None:
    frames = [
        b"1,a,tempC,5,\n1,b,tempC,6,\n1,a,rpm,7,\n2,a,rpm,8,\n1,a,mode,run,",
        b"1,a,tempC,1,\n1,a,tempC,2,\n1,a,rpm,3,",
        b"1,a,tempC,1,bad\n1,a,rpm,2,Uncertain\n1,a,on,1,false\n1,a,mode,x,0x40000000",
        b"1,a,other,1,\n1,a,tempC,,",
        b"1,,tempC,1,",
    ]
    found = decode(TALL, frames, "t,d,m,v,q")
    assert found.status.tolist() == [0] * 5
    assert found.names == ["a", "b", "a", "a", "a", "a", "a", ""]
    assert found.frame.tolist() == [0, 0, 0, 1, 1, 2, 3, 4]
    assert found.index.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert found.value[0].tolist()[:2] == [5, 6]
    assert found.value[1].tolist()[:3] == [7, pytest.approx(float("nan"), nan_ok=True), 8]
    assert found.value[:2, 3].tolist()[0] == 1
    assert found.value[:2, 4].tolist() == [2, 3]  # a metric that stands twice begins another reading
    assert found.quality[:, 5].tolist() == [BAD, UNCERTAIN, BAD, UNCERTAIN]
    assert found.quality[0, 6] == ABSENT
    assert found.unknown == {"other": 1}
    assert found.unknown_frame is not None
    assert found.unknown_frame.tolist() == [0, 0, 0, 1, 0]


def test_a_wrong_row_takes_its_frame_along() -> None:
    found = decode(TALL, [b"1,a,tempC,5,\n1,a,,6,", b"1,a,rpm,1e999,", b"2,a,rpm,1,"], "t,d,m,v,q")
    assert found.detail == {
        0: "row 2 of 2: column 'm': a metric's name is expected",
        1: "column 'v': '1e999' is beyond the range of a double",
    }
    assert (found.frame.tolist(), found.value[1].tolist()) == ([2], [1.0])
    assert np.isnan(found.value[0, 0])


SUMMER, WINTER = "2026-03-29", "2026-10-25"  # when clocks of Berlin change


def berlin(text: str, ambiguous: str) -> tuple[int | None, str]:
    section = (
        f"format: csv\ntimestamp: {{column: 1, format: '%Y-%m-%d %H:%M:%S', zone: Europe/Berlin, "
        f"ambiguous: {ambiguous}}}\ncolumns: {{tempC: 2}}"
    )
    found = decode(section, [text.encode() + b",1"], None)
    return (int(found.ts_ns[0]) // SECOND if len(found.ts_ns) else None), found.detail.get(0, "")


def utc(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text + "+00:00").timestamp())


def test_the_hour_that_daylight_saving_repeats_or_leaves_out() -> None:
    assert berlin(f"{WINTER} 02:30:00", "earlier") == (utc(f"{WINTER} 00:30:00"), "")
    assert berlin(f"{WINTER} 02:30:00", "later") == (utc(f"{WINTER} 01:30:00"), "")
    told = "column '1': '2026-10-25 02:30:00' stands twice in Europe/Berlin (daylight saving)"
    assert berlin(f"{WINTER} 02:30:00", "reject") == (None, told)
    for choice in ("earlier", "later"):
        assert berlin(f"{SUMMER} 02:30:00", choice) == (utc(f"{SUMMER} 01:30:00"), "")
        assert berlin(f"{WINTER} 03:00:00", choice) == (utc(f"{WINTER} 02:00:00"), "")
    told = "column '1': '2026-03-29 02:30:00' does not exist in Europe/Berlin (daylight saving)"
    assert berlin(f"{SUMMER} 02:30:00", "reject") == (None, told)
    assert berlin(f"{SUMMER} 03:30:00", "reject") == (utc(f"{SUMMER} 01:30:00"), "")


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.datetimes(datetime.datetime(1980, 1, 1), datetime.datetime(2037, 1, 1)),
    st.sampled_from(ZONES),
    st.sampled_from(["%d.%m.%Y %H:%M:%S,%f", "%m/%d/%Y %I:%M:%S.%f %p", "%Y%m%d%H%M%S%f", "iso"]),
)
def test_local_times_of_every_zone_come_back(moment: datetime.datetime, zone: str, form: str) -> None:
    text = moment.isoformat(" ", "microseconds") if form == "iso" else moment.strftime(form)
    section = f"format: csv\nseparator: ';'\ntimestamp: {{column: 1, format: '{form}', zone: {zone}}}\n"
    found = decode(section + "columns: {tempC: 2}", [f"{text};1".encode()], None)
    local = moment.replace(tzinfo=ZoneInfo(zone))
    past = local - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert found.ts_ns.tolist() == [(past.days * 86_400 + past.seconds) * SECOND + past.microseconds * 1000]


def test_the_days_of_a_spreadsheet() -> None:
    section = (
        "format: csv\nseparator: ';'\ndecimal: ','\n"
        "timestamp: {column: 1, unit: excel, zone: Europe/Berlin}\ncolumns: {tempC: 2}"
    )
    cells = ["46082,4166666667", "46082", "46204,5", "-1", "9999999", "46082,41666"]
    found = decode(section, [f"{cell};1".encode() for cell in cells], None)
    assert [datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat() for ns in found.ts_ns] == [
        "2026-03-01T09:00:00+00:00",
        "2026-02-28T23:00:00+00:00",
        "2026-07-01T10:00:00+00:00",
        "2026-03-01T08:59:59.424000+00:00",
    ]
    assert sorted(found.detail) == [3, 4]


def test_a_date_and_a_time_in_two_columns() -> None:
    section = "format: csv\ntimestamp: [Date, 3]\ncolumns: {tempC: temp}"
    frames = [b"2026-03-01,1,09:00:00Z", b",2,", b"2026-03-01,3,soon"]
    found = decode(section, frames, "Date,temp,Time")
    assert found.time_source.tolist() == [0, 2]
    assert found.ts_ns.tolist() == [INGEST_NS, INGEST_NS + SECOND // 1000]
    assert found.detail[2] == "columns 'Date', '3': '2026-03-01 soon' is no time (ISO 8601 or a number)"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.decimals(-(10**12), 10**12, places=3),
    st.sampled_from([(",", "."), (".", ","), (",", " "), (".", "'"), (",", "\u202f")]),
)
def test_digits_in_groups(number: Decimal, marks: tuple[str, str]) -> None:
    decimal, thousands = marks
    text = f"{number:,f}".replace(",", "T").replace(".", decimal).replace("T", thousands)
    named = " " if thousands == "\u202f" else thousands
    section = (
        f"format: csv\nseparator: ';'\ndecimal: '{decimal}'\nthousands: \"{named}\"\ncolumns: {{tempC: 1}}"
    )
    assert decode(section, [text.encode()], None).value[0].tolist() == [float(number)]


@pytest.mark.parametrize("text", ["1.23", "1.2345", "12.34.567", ".123", "1..234", "1.234.", "1,5.000"])
def test_groups_of_other_sizes_are_no_number(text: str) -> None:
    section = "format: csv\nseparator: ';'\ndecimal: ','\nthousands: '.'\ncolumns: {tempC: 1}"
    assert decode(section, [text.encode()], None).value[0].tolist() == [
        pytest.approx(float("nan"), nan_ok=True)
    ]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.lists(st.lists(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")),
                      min_size=3, max_size=3), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
)  # fmt: skip
def test_rows_joined_by_their_source_are_what_the_csv_module_reads(rows: list[list[str]], mark: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=mark, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    kinds = {"a": "string", "b": "string", "c": "string"}
    section = f'format: csv\nseparator: "{mark}"\ncolumns: {{a: 1, b: 2, c: 3}}'.replace("\t", "\\t")
    found = decode(section, [out.getvalue().removesuffix("\n").encode()], None, kinds)
    assert found.index.tolist() == list(range(len(rows)))
    for at, row in enumerate(rows):
        for metric, cell in enumerate(row):
            code = found.value[metric, at]
            assert (found.texts[int(code)] if code == code else "") == cell.strip()


MISTAKES = [
    ("format: csv\nmetric: m", "m.yaml:1:1  'metric' and 'value' stand together; 'value' is missing"),
    ("format: csv\nquality: q", "m.yaml:2:1  quality: goes with 'metric' and 'value'"),
    ("format: csv\nthousands: '.'", "m.yaml:2:12  thousands: is the decimal mark as well (the default)"),
    (
        "format: csv\nthousands: '..'",
        'm.yaml:2:12  thousands: one character is expected, in quotes, e.g. ";"',
    ),
    ("format: csv\ntimestamp: []", "m.yaml:2:12  timestamp: 1 to 8 columns are expected"),
    ("format: csv\ntimestamp: [0]", "m.yaml:2:13  timestamp[0]: columns are counted from 1"),
    (
        "format: csv\ntimestamp: {column: t, ambiguous: both}",
        "m.yaml:2:35  timestamp.ambiguous: one of earlier, later, reject is expected",
    ),
    (
        "format: csv\nmetric: m\nvalue: v\ncolumns: {}",
        "m.yaml:4:1  columns: either 'columns' or 'metric' and 'value'",
    ),
    ("format: csv\nencoding: latin-1", "m.yaml:2:1  encoding: stands in the source of kind files"),
    (
        "format: csv\nrows: x",
        "m.yaml:2:1  rows: each row is one; of a tall file 'metric' and 'value' say the columns",
    ),
]


@pytest.mark.parametrize(("section", "told"), MISTAKES)
def test_mistakes_are_told_with_their_place(section: str, told: str) -> None:
    from operators.decode.csv_spec import parse_csv_spec

    problems = Problems()
    (node,) = load_yaml(section, "m.yaml", problems)
    metrics: dict[str, Any] = {}
    parse_csv_spec(node, metrics, {}, problems)
    assert problems.render().splitlines() == [told]


def test_reasons_of_ambiguous_times_are_those_of_wrong_ones() -> None:
    section = (
        "format: csv\ntimestamp: {column: 1, zone: Europe/Berlin, ambiguous: reject}\ncolumns: {tempC: 2}"
    )
    found = decode(section, [b"2026-10-25T02:30:00,1", b"2026-10-25T02:30:00+01:00,1"], None)
    assert found.status.tolist() == [Reason.malformed, 0]
