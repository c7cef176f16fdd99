"""Keys of a source of kind files."""

from __future__ import annotations

from typing import Literal

import msgspec

from operators.spec import SECOND, Duration, Size


class FilesConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="files"):
    """A folder whose files are read once each. A CSV file's rows and a JSON-lines file's lines
    are frames; the header line of a CSV is kept as the header `csv` of each row's address."""

    watch: str
    pattern: str = "*"
    format: Literal["csv", "jsonl"] | None = None  # default: by the file's name
    header: bool = True  # a CSV's first line names its columns
    separator: str = ","
    product: str | None = None
    device: str = "topic"
    topic: str | None = None
    live: bool = False  # event time is the reference: rules raise live alarms
    poll: Duration = SECOND
    settle: Duration = SECOND  # a file is read once its size has not changed for so long
    max_frame: Size = 1_000_000
