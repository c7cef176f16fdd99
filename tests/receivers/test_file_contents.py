"""What a file's bytes become: packed by the tools that everybody has, written in other encodings,
damaged, cut short, and far larger than they look."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from connectors.files.config import FilesConfig
from connectors.files.rows import BrokenFileError, file_rows
from connectors.source import Frame

TOOLS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}
ROWS = [b"%d,%d.5,caf\xc3\xa9" % (number, number * 7919 % 1000) for number in range(30_000)]


def config(**keys: Any) -> FilesConfig:
    return FilesConfig(watch="in", **keys)


def written(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def packed(tmp_path: Path, kind: str, *parts: bytes) -> Path:
    """A file as the command-line tool packs it, one stream a part."""
    tool = shutil.which(TOOLS[kind])
    if tool is None:
        pytest.skip(f"no {TOOLS[kind]} on this machine")
    streams = [
        subprocess.run([tool, "-c"], input=part, capture_output=True, check=True).stdout for part in parts
    ]
    return written(tmp_path, f"drop.csv.{kind}", b"".join(streams))


def rows(path: Path, **keys: Any) -> list[Frame]:
    return [row.frame for row in file_rows(path, config(**keys))]


def told(path: Path, **keys: Any) -> tuple[list[bytes], str]:
    """The rows before it, and why nothing more can be read."""
    found = []
    try:
        for row in file_rows(path, config(**keys)):
            found.append(row.frame.payload)
    except BrokenFileError as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("kind", TOOLS)
def test_files_of_the_packers_that_everybody_has(tmp_path: Path, kind: str) -> None:
    text = b"n,v,name\r\n" + b"\r\n".join(ROWS) + b"\r\n"
    path = packed(tmp_path, kind, text[:1000], text[1000:])  # two streams, as of `cat a.gz b.gz`
    found = rows(path)
    assert [frame.payload for frame in found] == ROWS
    assert {(frame.topic, frame.headers) for frame in found} == {("drop.csv", (("csv", "n,v,name"),))}
    assert [frame.line for frame in found[:2]] == [2, 3]
    assert found[-1].line == len(ROWS) + 1
    middle = list(file_rows(path, config()))[17_000]
    again = file_rows(path, config(), middle.end, middle.lines)
    assert next(again).frame == found[17_001]
    assert list(file_rows(path, config(), middle.end, middle.lines, give_up=lambda: True)) == []


@pytest.mark.parametrize("kind", TOOLS)
def test_what_is_cut_short_or_damaged_gives_what_was_read_and_says_so(tmp_path: Path, kind: str) -> None:
    path = packed(tmp_path, kind, b"n\n" + b"\n".join(ROWS))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    before, why = told(path)
    assert why == f"its {kind} stream ends too early"
    assert before == ROWS[: len(before)]
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    damaged = f"is no {kind} file, or damaged: "
    assert told(path)[1].startswith((damaged, f"its {kind} stream ends too early"))
    path.write_bytes(b"plain text, long enough for every head")
    assert told(path)[1].startswith(damaged)
    path.write_bytes(whole + bytes(512))  # padding of tapes
    assert len(rows(path)) == len(ROWS)


def test_packed_without_the_ending_and_unpacked_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, "drop.csv", gzip.compress(b"n\n1\n"))
    assert [frame.payload for frame in rows(path, compressed="gz")] == [b"1"]
    path = written(tmp_path, "odd.gz", b"n\n1\n")
    assert [(frame.topic, frame.payload) for frame in rows(path, compressed="none")] == [("odd.gz", b"1")]
    assert rows(written(tmp_path, "empty.csv", b"")) == []
    assert rows(written(tmp_path, "empty.csv.gz", b"")) == []


def test_bombs_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    deflate = zlib.compressobj(9, wbits=31)
    piece = (b"1,2,3,4" + b" " * 4088 + b"\n") * 256
    bomb = b"".join(deflate.compress(piece) for _ in range(100)) + deflate.flush()
    path = written(tmp_path, "bomb.csv.gz", bomb)
    before, why = told(path, max_ratio=200)
    assert why == "unpacks to more than 200 times its size (max_ratio)"
    assert 64_000_000 // 4096 - 300 < len(before) < 64_000_000 // 4096 + 1000
    assert told(path, max_unpacked=3_000_000)[1] == "unpacks to more than 3000000 bytes (max_unpacked)"
    path = written(tmp_path, "bomb.csv.zst", zstandard.compress(bytes(300 << 20), 19))
    assert told(path)[1] == "unpacks to more than 2000 times its size (max_ratio)"
    huge = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    ).compressobj()
    path = written(tmp_path, "window.csv.zst", huge.compress(bytes(1000)) + huge.flush())
    assert told(path)[1].startswith("is no zst file, or damaged: ")


ENCODED = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "windows-1252", "utf-8-sig"]


@pytest.mark.parametrize("name", ENCODED)
def test_every_encoding_becomes_utf8(tmp_path: Path, name: str) -> None:
    text = 'Zeit;Größe;Ort\r\n1;2,5;"Köln\r\nSüd"\r\n2;3,5;Umeå\r\n'
    path = written(tmp_path, "drop.csv", text.encode(name))
    found = rows(path, encoding=name)
    assert [frame.payload.decode() for frame in found] == ['1;2,5;"Köln\r\nSüd"', "2;3,5;Umeå"]
    assert [frame.line for frame in found] == [2, 4]
    assert found[0].headers == (("csv", "Zeit;Größe;Ort"),)
    if name in ("utf-16", "utf-32", "utf-8-sig"):  # they begin with a mark
        assert rows(path) == found
    made = list(file_rows(path, config(encoding=name)))
    assert [row.frame for row in file_rows(path, config(encoding=name), made[0].end)] == found[1:]


@pytest.mark.parametrize("name", ["UTF-16", "EUC-KR", "SHIFT_JIS", "ISO-8859-15"])
def test_what_iconv_writes(tmp_path: Path, name: str) -> None:
    tool = shutil.which("iconv")
    if tool is None:
        pytest.skip("no iconv on this machine")
    words = {"EUC-KR": "온도", "SHIFT_JIS": "温度", "ISO-8859-15": "€uro"}.get(name, "Ω/温")
    text = f"n,{words}\n" + "".join(f"{number},{words}\n" for number in range(40_000))
    done = subprocess.run(
        [tool, "-f", "UTF-8", "-t", name], input=text.encode(), capture_output=True, check=True
    )
    path = written(tmp_path, "drop.csv", done.stdout)
    found = rows(path, encoding=None if name == "UTF-16" else name.lower())
    assert len(found) == 40_000
    assert {frame.payload.decode().partition(",")[2] for frame in found} == {words}
    assert found[0].headers == (("csv", f"n,{words}"),)


def test_what_is_no_text_of_the_encoding_spoils_its_row_alone(tmp_path: Path) -> None:
    data = "a\r\n1\r\n".encode("utf-16-le") + b"\x00\xd8" + "\r\n3\r\n".encode("utf-16-le") + b"x"
    found = rows(written(tmp_path, "drop.csv", data), encoding="utf-16-le")
    assert [frame.payload for frame in found] == [b"1", b"\xff", b"3", b"\xff"]


def test_the_offsets_of_a_long_packed_file_hold_wherever_one_begins(tmp_path: Path) -> None:
    draw = random.Random(7)
    lines = [b"%d," % number + b"x" * draw.randrange(0, 300) for number in range(20_000)]
    path = written(tmp_path, "drop.csv.gz", gzip.compress(b"\n".join(lines)))
    made = list(file_rows(path, config(header=False)))
    assert [row.frame.payload for row in made] == lines
    for at in draw.sample(range(len(lines)), 5):
        here = next(file_rows(path, config(header=False), made[at].end, made[at].lines), None)
        assert here is None or here.frame == made[at + 1].frame
