"""Rows of a file as frames: a CSV file's rows, a JSON-lines file's lines, a Parquet file's rows.

Shared by the `files` source and by recorded input, so that a CSV dropped into a folder and the
same CSV given to `replay` make the same frames.

A row is the UTF-8 of the text between two line ends, without them (`\\n` or `\\r\\n`); in CSV a line
end within double quotes belongs to the row. Blank lines and comments are no rows. A row beyond the cap,
and a quote that is never closed, become one frame with the header `("resync", why)` that holds the
beginning of it, so that it is rejected and told; reading goes on at the next line. Each frame says its line.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from connectors.files.config import SEPARATORS, FilesConfig
from connectors.files.content import SUFFIXES, BrokenFileError, Content, plain_name
from connectors.files.lines import HEAD, Line, Lines, Quotes
from connectors.source import Frame

__all__ = ["HEAD", "BrokenFileError", "Row", "csv_frames", "file_format", "file_rows", "is_csv_name"]

HEADER_CAP: Final = 65_536  # of a CSV's header line: it travels with every row's address
JOINED_ROWS: Final = 1_000  # of one frame
LOOKED_AT: Final = 100  # rows, to know how many columns there are
JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
_EXCEL_HINT: Final = re.compile(rb'"?sep=(.)"?\Z', re.IGNORECASE)  # a first line for Excel alone


class Row(NamedTuple):
    """One frame, and from where reading may go on: the offset behind it and how many lines have ended
    by then. ended: by a line end, so that it is whole whatever is written behind it."""

    frame: Frame
    end: int
    lines: int = 0
    ended: bool = True


def _never() -> bool:
    return False


def _ignore(file: BinaryIO) -> None:
    pass


def file_format(name: str, config: FilesConfig) -> str:
    """`csv`, `jsonl` or `parquet`: as configured, else by the file's name (anything else is CSV)."""
    if config.format is not None:
        return config.format
    name = plain_name(name, config).lower()
    return "jsonl" if name.endswith(JSON_SUFFIXES) else "parquet" if name.endswith(".parquet") else "csv"


def is_csv_name(name: str) -> bool:
    """Whether a file of recorded input is CSV by its name, packed or not."""
    stem, ending = os.path.splitext(name.lower())
    return (stem if ending in SUFFIXES else name.lower()).endswith(".csv")


def csv_frames(path: Path, config: FilesConfig) -> Iterator[Frame]:
    """Every row of one file as a frame: topic = the file's name, headers = `csv`: its header line."""
    for row in file_rows(path, config):
        yield row.frame


def file_rows(
    path: Path,
    config: FilesConfig,
    start: int = 0,
    lines: int = 0,
    *,
    topic: str | None = None,
    give_up: Callable[[], bool] = _never,
    opened: Callable[[BinaryIO], object] = _ignore,
) -> Iterator[Row]:
    """The rows that begin at or after `start`, which is 0 or the `end` of an earlier row; `lines` is
    that row's as well (0: they are counted again).

    topic: default is the file's name without the ending of its packing. give_up: asked while what
    was read before is passed over, which may take long in a packed file. opened: told the file itself,
    which knows how much of it is read.
    Memory is bounded by `max_frame`. Raises OSError, and BrokenFileError where nothing more can be read.
    """
    topic = plain_name(path.name, config) if topic is None else topic
    kind = file_format(path.name, config)
    if kind == "parquet":
        from connectors.files.parquet import parquet_rows

        yield from parquet_rows(path, topic, start)
        return
    with path.open("rb") as file:
        opened(file)
        content = Content(file, path.name, config)
        reader = Lines(content, config.max_frame, content.at)
        table = None if kind == "jsonl" else _Table(reader, config)
        if start > reader.at:
            if content.is_plain and lines:
                content.start_at(start)
                reader = Lines(content, config.max_frame, start, lines)
            elif not reader.skip_to(start, give_up):
                return
        yield from _json_rows(reader, topic) if table is None else table.rows(reader, topic, start)


def _json_rows(reader: Lines, topic: str) -> Iterator[Row]:
    while True:
        for data, number, end in reader.plain(quotes=False):
            if data and not data.isspace():
                yield Row(Frame(topic, data, line=number), end, number)
        line = reader.line()
        if line is None:
            return
        if line.data.strip():
            yield _row(line, topic, ())


def _row(line: Line, topic: str, headers: tuple[tuple[str, str], ...]) -> Row:
    if line.why:
        headers = (*headers, ("resync", line.why))
    return Row(Frame(topic, line.data, headers=headers, line=line.number), line.end, line.lines, line.ended)


class _Table:
    """What stands before the rows of a CSV file: reads up to the first of them, and, where there is no
    header line but columns are named, up to the first sound one, to know how many cells rows have."""

    def __init__(self, reader: Lines, config: FilesConfig) -> None:
        self._config = config
        self._comment = config.comment.encode() if config.comment else b""
        self._quotes = Quotes(config.separator or "".join(SEPARATORS))
        self._read: list[Line] = []  # rows that were looked at for that
        self.headers: tuple[tuple[str, str], ...] = ()
        for _ in range(config.skip):
            reader.line()
        text = self._header(reader) if config.header else None
        for _ in range(config.skip_after):
            reader.line()
        names = self._names(text, reader) if config.columns or config.join else []
        if config.columns:
            text = self._written(names)
        if text is not None:
            self.headers = (("csv", text),)
        self._join = [_place(column, names, text is not None) for column in config.join]

    def _next(self, reader: Lines) -> Line | None:
        """The next row that is none of blank lines and comments."""
        while (line := reader.row(self._quotes)) is not None:
            if line.data.strip() and not (self._comment and line.data.startswith(self._comment)):
                return line
        return None

    def _header(self, reader: Lines) -> str:
        line = self._next(reader)
        if line is not None and (hint := _EXCEL_HINT.match(line.data)) is not None:
            self._quotes = Quotes(self._config.separator or hint[1].decode("utf-8", "replace"))
            line = self._next(reader)
        if line is None:
            return ""
        if line.why or len(line.data) > HEADER_CAP:
            told = line.why or f"more than {HEADER_CAP} bytes"
            raise BrokenFileError(f"line {line.number}, which names the columns: {told}")
        return line.data.decode("utf-8", "replace")

    def _names(self, header: str | None, reader: Lines) -> list[str]:
        """The names of the columns, "" of one that has none; `columns` has the last word."""
        config = self._config
        if header is None:
            header = self._first_row(reader)
        header = header or ""
        self._separator = config.separator or _likeliest(header)
        cells = _cells(header, self._separator)
        if cells is None:
            raise BrokenFileError("the header line is no CSV")
        if not header.strip():
            return []  # an empty file
        names = [cell.strip() for cell in cells] if config.header else [""] * len(cells)
        given = {name: _place(column, names, config.header) for name, column in config.columns.items()}
        named = ["" if name in given else name for name in names]
        for name, at in given.items():
            named[at] = name
        return named

    def _first_row(self, reader: Lines) -> str:
        while (line := self._next(reader)) is not None and len(self._read) < LOOKED_AT:
            self._read.append(line)
            text = line.data.decode("utf-8", "replace")
            if not line.why and _cells(text, self._config.separator or _likeliest(text)) is not None:
                return text
        if line is not None:
            raise BrokenFileError(
                f"none of its first {LOOKED_AT} rows is sound, to tell how many columns it has"
            )
        return ""

    def _written(self, names: list[str]) -> str:
        quoted = (
            '"' + name.replace('"', '""') + '"' if _odd(name, self._separator) else name for name in names
        )
        return self._separator.join(quoted)

    def rows(self, reader: Lines, topic: str, start: int) -> Iterator[Row]:
        made = self._single(reader, topic, start)
        return self._joined(made) if self._join else made

    def _single(self, reader: Lines, topic: str, start: int) -> Iterator[Row]:
        headers = self.headers
        for line in self._read:
            if start < line.end:
                yield _row(line, topic, headers)
        comment = self._comment
        while True:
            for data, number, end in reader.plain(quotes=True):
                if data and not data.isspace() and not (comment and data.startswith(comment)):
                    yield Row(Frame(topic, data, headers=headers, line=number), end, number)
            made = self._next(reader)
            if made is None:
                return
            yield _row(made, topic, headers)

    def _joined(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Rows that follow each other and agree in the columns of `join`, as one frame of several lines."""
        gathered: list[Row] = []
        size, key = 0, None
        for row in rows:
            found = self._key(row)
            size += len(row.frame.payload) + 1
            full = size > self._config.max_frame or len(gathered) == JOINED_ROWS
            if gathered and (found is None or found != key or full):
                yield _one(gathered)
                gathered.clear()
                size = len(row.frame.payload) + 1
            gathered.append(row)
            key = found
        if gathered:
            yield _one(gathered)

    def _key(self, row: Row) -> list[str] | None:
        """What rows of one frame have in common; None for a row that stands alone."""
        if row.frame.headers != self.headers:
            return None
        cells = _cells(row.frame.payload.decode("utf-8", "replace"), self._separator)
        if cells is None or max(self._join) >= len(cells):
            return None
        return [cells[at].strip() for at in self._join]


def _one(rows: list[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    first, last = rows[0].frame, rows[-1]
    payload = b"\n".join(row.frame.payload for row in rows)
    return last._replace(frame=Frame(first.topic, payload, headers=first.headers, line=first.line))


def _cells(text: str, separator: str) -> list[str] | None:
    if '"' not in text:
        return text.split(separator)
    try:
        rows = list(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _likeliest(header: str) -> str:
    """The separator that stands in a header line most often, outside of quotes."""
    bare = re.sub('"[^"]*"', "", header)
    return max(SEPARATORS, key=bare.count)


def _place(column: str | int, names: list[str], named: bool) -> int:
    if not names and (named or isinstance(column, int)):
        return column - 1 if isinstance(column, int) else 0  # an empty file, or one whose rows tell it
    if isinstance(column, int):
        if column <= len(names):
            return column - 1
        raise BrokenFileError(f"there is no column {column}: rows have {len(names)}")
    if not named:
        raise BrokenFileError(f"no header line names column '{column}'")
    if column in names:
        return names.index(column)
    known = ", ".join(f"'{name}'" for name in names[:20] if name)
    raise BrokenFileError(f"the header line has no column '{column}'; it names {known}")


def _odd(name: str, separator: str) -> bool:
    return any(character in name for character in (separator, '"', "\n", "\r"))
