"""Scalar types of the plant folder. A spec is a `msgspec.Struct`; the plant reader turns the
text of these types into numbers and reports every error with its place."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

NANOSECOND: Final = 1
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

Duration = Annotated[
    int,
    Meta(
        extra={"kind": "duration"},
        extra_json_schema={"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$"},
    ),
]
"""Nanoseconds; written `500ms 10s 5m 1h 30d`."""

Size = Annotated[
    int,
    Meta(
        extra={"kind": "size"},
        extra_json_schema={"type": "string", "pattern": r"^\d+(\.\d+)?(B|KB|MB|GB|TB)$"},
    ),
]
"""Bytes; written `64KB 4GB` (powers of 1000)."""

Expression = Annotated[str, Meta(extra={"kind": "expression"})]
"""Text of the expression language (FORMATS section 3); parsed by `operators.expression.grammar`."""
