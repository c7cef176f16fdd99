"""Keys of a source of kind files."""

from __future__ import annotations

import codecs
from typing import Final, Literal

import msgspec

from operators.spec import SECOND, Duration, Size

SEPARATORS: Final = (",", ";", "\t", "|")  # known without being named
_NO_TEXT: Final = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7")


class FilesConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="files"):
    """A folder whose files are read once each. A CSV file's rows and a JSON-lines file's lines
    are frames; the header line of a CSV is kept as the header `csv` of each row's address."""

    watch: str
    pattern: str = "*"  # with `/` of the path below watch, `**/` any folders; else of names in it
    format: Literal["csv", "jsonl", "parquet"] | None = None  # default: by the file's name
    compressed: Literal["auto", "none", "gz", "zst", "bz2", "xz"] = "auto"  # auto: by the file's name
    max_unpacked: Size = 64_000_000_000
    max_ratio: int = 2_000  # of unpacked bytes to the file's, beyond the first 64 MB
    encoding: str | None = None  # default: UTF-8, or what a byte order mark says
    header: bool = True  # a CSV's first line names its columns
    skip: int = 0  # lines before it
    skip_after: int = 0  # lines behind it, e.g. of units
    comment: str | None = None  # lines that begin so are none
    separator: str | None = None  # default: any of , ; tab |
    columns: dict[str, str | int] = {}  # name for the product -> column, by its name or place from 1
    join: list[str | int] = []  # rows in a row that are equal in these columns are one frame
    after: Literal["move", "rename", "mark", "delete"] = "move"
    done: str = "done/"
    failed: str = "failed/"
    product: str | None = None
    carries: Literal["frames", "master"] = "frames"  # master: each frame is a change of master data
    device: str = "topic"
    topic: str | None = None
    live: bool = False  # event time is the reference: rules raise live alarms
    poll: Duration = SECOND
    settle: Duration = SECOND  # a file is read once its size has not changed for so long
    max_frame: Size = 1_000_000


def encoding_problem(name: str) -> str | None:
    """What is wrong with the name of an encoding."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return f"unknown encoding '{name[:40]}'; for example utf-8, utf-16, latin-1, windows-1252, shift_jis"
    if found.name in _NO_TEXT or not getattr(found, "_is_text_encoding", True):
        return f"'{name}' is no encoding of text"
    return None


def folder_problem(name: str) -> str | None:
    """What is wrong with the name of the folder that files are moved to: it lies below `watch`."""
    parts = name.strip("/").split("/")
    if name.startswith("/") or not name.strip("/") or any(part in ("", ".", "..") for part in parts):
        return "a folder below 'watch' is expected, e.g. done/: files are moved within one file system"
    return None
