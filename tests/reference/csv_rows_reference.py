"""The rows of a CSV file, the plain way: every byte looked at, the whole file in memory."""

from __future__ import annotations

import re


def _open_after(line: bytes, separators: bytes, inside: bool) -> bool:
    """Whether a quote is open behind a line."""
    begins = not inside  # a cell may begin here
    skip = False
    for at, byte in enumerate(line):
        if skip:
            skip = False
        elif inside:
            if byte == 34 and line[at + 1 : at + 2] == b'"':
                skip = True
            elif byte == 34:
                inside = False
        elif begins and byte == 34:
            inside = True
        begins = not inside and byte in separators
    return inside


def _bare(text: bytes) -> bytes:
    return re.sub(rb"\r?\n\Z", b"", text)


def csv_rows(data: bytes, separators: bytes, cap: int) -> list[tuple[bytes, int, str]]:
    """(row, its first line from 1, why it is refused or "")."""
    lines = re.findall(rb"[^\n]*\n|[^\n]+", data)
    found, at = [], 0
    while at < len(lines):
        row, why, behind = _bare(lines[at]), "", at + 1
        if len(row) > cap:
            row, why = row[:cap], "long"
        elif _open_after(row, separators, False):
            whole, inside = lines[at], True
            while inside and behind < len(lines) and len(whole) <= cap:
                inside = _open_after(_bare(lines[behind]), separators, True)
                whole += lines[behind]
                behind += 1
            if inside or len(_bare(whole)) > cap:
                why, behind = "open", at + 1
            else:
                row = _bare(whole)
        if row.strip():
            found.append((row, at + 1, why))
        at = behind
    return found
