"""Bodies of HTTP requests: unpacked within a bound, split as a plain reader would."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.http.bodies import Refused, split, unpack

MANY: dict[str, Any] = {"arrays": True, "max_frame": 1000, "max_batch": 1000}


def refused(work: Any, *given: Any, **keys: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as error:
        work(*given, **keys)
    return error.value.status, error.value.why


@settings(deadline=None, max_examples=60, derandomize=True)
@given(body=st.binary(max_size=3000), members=st.integers(1, 3))
def test_what_is_packed_comes_out(body: bytes, members: int) -> None:
    assert unpack(body, "", 10) == body
    assert unpack(gzip.compress(body) * members, "gzip", 9000) == body * members
    assert unpack(zstandard.compress(body) * members, "zstd", 9000) == body * members


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    body=st.binary(min_size=1, max_size=300), cut=st.integers(0, 400), name=st.sampled_from(["gzip", "zstd"])
)
def test_a_packed_body_that_is_cut_or_hostile_is_refused(body: bytes, cut: int, name: str) -> None:
    packed = gzip.compress(body) if name == "gzip" else zstandard.compress(body)
    for hostile in (packed[: 1 + cut % (len(packed) - 1)], body):
        status, why = refused(unpack, hostile, name, 10_000)
        assert status == 400
        assert name in why


def test_bombs_end_at_the_cap() -> None:
    zeros = bytes(200_000_000)
    for name, bomb in (("gzip", zlib.compress(zeros, wbits=31)), ("zstd", zstandard.compress(zeros))):
        assert refused(unpack, bomb, name, 1_000_000) == (413, "the body unpacks to more than 1000000 bytes")
    exact = bytes(1_000_000)
    assert unpack(gzip.compress(exact), "gzip", 1_000_000) == exact
    assert unpack(zstandard.compress(exact), "zstd", 1_000_000) == exact


def test_what_is_no_packed_body() -> None:
    assert refused(unpack, b"x", "br", 9) == (415, "content encoding 'br' is not taken; gzip, zstd or none")
    assert refused(unpack, b"plain", "gzip", 9) == (
        400,
        "the body is not gzip: Error -3 while decompressing data: incorrect header check",
    )
    assert refused(unpack, gzip.compress(b"abc")[:-3], "gzip", 9) == (400, "the gzip body is cut short")
    assert refused(unpack, zstandard.compress(b"abc")[:-1], "zstd", 9) == (400, "the zstd body is cut short")


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    values=st.lists(_values, max_size=10),
    indent=st.sampled_from([None, 1]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_batches_of_json(values: list[Any], indent: int | None, end: str) -> None:
    array = json.dumps(values, indent=indent).encode()
    assert [
        json.loads(one) for one in split(array, "application/json; charset=utf-8", **MANY).payloads
    ] == values
    lines = "".join(json.dumps(value) + end for value in values).encode() + b" \n"
    assert [json.loads(one) for one in split(lines, "application/x-ndjson", **MANY).payloads] == values
    whole = split(array, "application/json", **{**MANY, "arrays": False, "max_frame": 10**6})
    assert whole.payloads == [array]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    rows=st.lists(
        st.lists(st.text("ab,\" \n'", min_size=1, max_size=5), min_size=2, max_size=3), min_size=1, max_size=8
    ),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_of_csv(rows: list[list[str]], end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["t", "v"], *rows])
    found = split(text.getvalue().encode(), "text/csv", **MANY)
    assert found.csv == '"t","v"'
    assert [next(csv.reader([one.decode()])) for one in found.payloads] == [
        next(csv.reader([",".join('"' + cell.replace('"', '""') + '"' for cell in row)])) for row in rows
    ]


def test_csv_without_a_header_line() -> None:
    assert split(b"1,2\n\n3,4", "text/csv; header=absent", **MANY) == ([b"1,2", b"3,4"], None)
    assert refused(split, b't\n1,"2\n', "text/csv", **MANY) == (400, "the CSV ends within a quote")


def test_what_is_one_frame_whatever_it_is() -> None:
    for kind, body in (("", b""), ("application/octet-stream", b"[1]"), ("application/json", b"{broken")):
        assert split(body, kind, **MANY).payloads == [body]


def test_caps() -> None:
    few = {"arrays": True, "max_frame": 5, "max_batch": 2}
    assert refused(split, b"1\n2\n3", "application/x-ndjson", **few) == (
        413,
        "more than 2 frames in one request",
    )
    assert refused(split, b"[1,123456]", "application/json", **few) == (
        413,
        "frame 1 has 6 bytes, at most 5 allowed",
    )
    assert refused(split, b"\n" * 9, "application/x-ndjson", **few) == (
        413,
        "more than 2 frames in one request",
    )
    status, why = refused(split, b"[1,]", "application/json", **few)
    assert (status, why) == (
        400,
        "the JSON array cannot be split: JSON is malformed: trailing comma in array (byte 3)",
    )
    assert refused(split, b"[" * 100_000, "application/json", **few)[0] == 400
