"""What the historian's drainer needs to know: where ClickHouse is, and what it is to hold."""

from __future__ import annotations

import msgspec

from operators.spec import DAY, Duration, Size


class Keep(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How long rows are kept, counted from ingest, so that old data can be loaded."""

    raw: Duration = 10 * DAY
    windows: Duration = 400 * DAY


class ClickHouseConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The `historian:` section of a plant. url: `embedded`, or `http(s)://user:password@host:port/database`."""

    url: str = "embedded"
    listen: str = "127.0.0.1:8123"
    keep: Keep = msgspec.field(default_factory=Keep)
    backlog: Size = 4_000_000_000
