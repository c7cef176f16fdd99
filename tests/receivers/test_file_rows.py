"""Rows of files: line ends, quotes, caps, and going on from any row's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files import content
from connectors.files.config import FilesConfig
from connectors.files.lines import Quotes
from connectors.files.rows import HEAD, csv_frames, file_format, file_rows
from tests.reference.csv_rows_reference import csv_rows


def config(**keys: object) -> FilesConfig:
    return FilesConfig(watch="in", **keys)  # type: ignore[arg-type]  # keys of the struct


def write(tmp_path: Path, data: bytes, name: str = "drop.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_header_travels_with_every_row(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbftimestamp,value\r\n1,2\r\n\r\n3,4")
    frames = list(csv_frames(path, config()))
    assert [frame.payload for frame in frames] == [b"1,2", b"3,4"]
    assert {frame.headers for frame in frames} == {(("csv", "timestamp,value"),)}
    assert {frame.topic for frame in frames} == {"drop.csv"}


def test_without_header_the_first_line_is_a_row(tmp_path: Path) -> None:
    frames = list(csv_frames(write(tmp_path, b"1,2\n3,4\n"), config(header=False)))
    assert [(frame.payload, frame.headers) for frame in frames] == [(b"1,2", ()), (b"3,4", ())]


def test_line_ends_within_quotes_belong_to_the_row(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n1,"x\r\ny ""q"" z"\r\n2,w\n')
    assert [frame.payload for frame in csv_frames(path, config())] == [b'1,"x\r\ny ""q"" z"', b"2,w"]


def test_a_quote_never_closed_costs_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n1,"x\n2,y\n3,z\n')
    frames = list(csv_frames(path, config()))
    assert [frame.payload for frame in frames] == [b'1,"x', b"2,y", b"3,z"]
    assert dict(frames[0].headers)["resync"] == "a quote that is not closed within 1000000 bytes"
    assert "resync" not in dict(frames[1].headers)


def test_a_line_beyond_the_cap_is_told_and_passed(tmp_path: Path) -> None:
    path = write(tmp_path, b"a\n" + b"x" * 20_000 + b"\n2\n")
    frames = list(csv_frames(path, config(max_frame=10_000)))
    assert [len(frame.payload) for frame in frames] == [HEAD, 1]
    assert dict(frames[0].headers)["resync"] == "a line of more than 10000 bytes"


def test_a_line_of_exactly_the_cap_is_whole(tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n", b""):
        path = write(tmp_path, b"x" * 100 + end, "drop.jsonl")
        assert [frame.payload for frame in csv_frames(path, config(max_frame=100))] == [b"x" * 100]


def test_the_format_is_known_by_name_or_configuration() -> None:
    assert file_format("a.NDJSON", config()) == "jsonl"
    assert file_format("a.txt", config()) == "csv"
    assert file_format("a.csv", config(format="jsonl")) == "jsonl"


def test_quotes_mean_nothing_in_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a": 1}\n"\n{}\n', "drop.jsonl")
    assert [frame.payload for frame in csv_frames(path, config())] == [b'{"a": 1}', b'"', b"{}"]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    data=st.lists(st.sampled_from([b"a", b",", b'"', b"\n", b"\r\n", b"xyz", b"#"]), max_size=40).map(
        b"".join
    ),
    keys=st.fixed_dictionaries(
        {},
        optional={
            "comment": st.just("#"),
            "join": st.just([1]),
            "encoding": st.just("latin-1"),
            "skip": st.integers(0, 2),
        },
    ),
    told=st.booleans(),
)
def test_reading_on_from_any_end_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, keys: dict[str, Any], told: bool
) -> None:
    path = write(tmp_path_factory.mktemp("rows"), data)
    limits = config(max_frame=12, header=False, **keys)
    rows = list(file_rows(path, limits))
    for index, row in enumerate(rows):
        again = list(file_rows(path, limits, row.end, row.lines if told else 0))
        assert again == rows[index + 1 :]


TEXTS = [b"a", b",", b";", b'"', b'""', b"\n", b"\r\n", b"\r", b"xyz", b" ", b'\n"', b',"', b'",']


@settings(deadline=None, max_examples=400, derandomize=True)
@given(
    data=st.lists(st.sampled_from(TEXTS), max_size=60).map(b"".join),
    piece=st.integers(1, 40),
    cap=st.integers(3, 30),
    separator=st.sampled_from([None, ",", ";"]),
)
def test_rows_are_those_of_the_plain_way(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, piece: int, cap: int, separator: str | None
) -> None:
    """However the file is cut into pieces."""
    path = write(tmp_path_factory.mktemp("rows"), data)
    limits = config(max_frame=cap, header=False, separator=separator)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(content, "PIECE", piece)
        frames = list(csv_frames(path, limits))
    told = {"a line": "long", "a quot": "open", "": ""}
    found = [(f.payload, f.line, told[dict(f.headers).get("resync", "")[:6]]) for f in frames]
    body = data.removeprefix(b"\xef\xbb\xbf")
    assert found == csv_rows(body, (separator or ",;\t|").encode(), cap)


def test_lines_that_each_open_a_quote_are_read_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any of them could go on for the whole cap; each line is looked at twice at most."""
    path = write(tmp_path, b"a\n" + b'x",",\n' * 20_000)
    looked, opens = 0, Quotes.opens

    def counted(self: Quotes, line: bytes, *, inside: bool) -> bool:
        nonlocal looked
        looked += 1
        return opens(self, line, inside=inside)

    monkeypatch.setattr(Quotes, "opens", counted)
    found = list(csv_frames(path, config(max_frame=300_000)))
    assert len(found) == 20_000
    assert all("resync" in dict(frame.headers) for frame in found)
    assert looked <= 40_000
