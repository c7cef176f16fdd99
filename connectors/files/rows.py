"""Rows of a file as frames: a CSV file's rows, a JSON-lines file's lines.

Shared by the `files` source and by recorded input, so that a CSV dropped into a folder and the
same CSV given to `replay` make the same frames.

A row is the raw bytes between two line ends, without them (`\\n` or `\\r\\n`); in CSV a line end
within double quotes belongs to the row. Blank lines are no rows. A row beyond the cap, and a
quote that is never closed, become one frame with the header `("resync", why)` that holds the
beginning of it, so that it is rejected and told; reading goes on at the next line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from connectors.files.config import FilesConfig
from connectors.source import Frame

HEAD: Final = 4096  # bytes kept of a row that is refused
HEADER_CAP: Final = 65_536  # of a CSV's header line: it travels with every row's address
BOM: Final = b"\xef\xbb\xbf"
JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")


class Row(NamedTuple):
    """One frame and the offset in the file behind it, from which reading may go on."""

    frame: Frame
    end: int


def file_format(name: str, config: FilesConfig) -> str:
    """`csv` or `jsonl`: as configured, else by the file's name (anything but JSON is CSV)."""
    if config.format is not None:
        return config.format
    return "jsonl" if name.lower().endswith(JSON_SUFFIXES) else "csv"


def csv_frames(path: Path, config: FilesConfig) -> Iterator[Frame]:
    """Every row of one file as a frame: topic = the file's name, headers = `csv`: its header line."""
    for row in file_rows(path, config):
        yield row.frame


def file_rows(path: Path, config: FilesConfig, start: int = 0) -> Iterator[Row]:
    """The rows that begin at or after byte `start`, which is 0 or the `end` of an earlier row.

    Memory is bounded by `max_frame`. Raises OSError.
    """
    csv = file_format(path.name, config) == "csv"
    with path.open("rb") as file:
        if file.read(3) != BOM:
            file.seek(0)
        headers: tuple[tuple[str, str], ...] = ()
        if csv and config.header:
            line, _ = _line(file, HEADER_CAP)
            headers = (("csv", line.decode("utf-8", "replace")),)
        if start > file.tell():
            file.seek(start)
        yield from _rows(file, path.name, headers, csv, config.max_frame)


def _rows(
    file: BinaryIO, topic: str, headers: tuple[tuple[str, str], ...], csv: bool, cap: int
) -> Iterator[Row]:
    position = file.tell()
    while True:
        line, whole = _line(file, cap)
        end = file.tell()
        if end == position:
            return
        why = "" if whole else f"a line of more than {cap} bytes"
        if csv and whole and line.count(b'"') % 2:
            file.seek(position)
            quoted = _quoted(file, cap)
            if quoted is None:
                file.seek(end)
                why = f"a quote that is not closed within {cap} bytes"
            else:
                line = quoted
        position = file.tell()
        if why:
            yield Row(Frame(topic, line[:HEAD], headers=(*headers, ("resync", why))), position)
        elif line.strip():
            yield Row(Frame(topic, line, headers=headers), position)


def _line(file: BinaryIO, cap: int) -> tuple[bytes, bool]:
    """The next line without its end, cut to `cap` bytes, and whether that is all of it; the file
    stands behind the line end."""
    line = file.readline(cap + 2)
    if line.endswith(b"\n"):
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
    elif len(line) > cap:
        while (rest := file.readline(HEADER_CAP)) and not rest.endswith(b"\n"):
            pass
    return line[:cap], len(line) <= cap


def _quoted(file: BinaryIO, cap: int) -> bytes | None:
    """The row that begins here and runs over line ends within quotes, without its own line end;
    None if its last quote is not closed before the end of the file or within `cap` bytes."""
    pieces: list[bytes] = []
    size, open_quote = 0, False
    while size <= cap and (line := file.readline(cap + 2)):
        pieces.append(line)
        size += len(line)
        open_quote ^= line.count(b'"') % 2 == 1
        if not open_quote:
            row = b"".join(pieces)
            return row[:-2] if row.endswith(b"\r\n") else row.removesuffix(b"\n")
    return None
