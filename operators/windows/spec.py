"""What a product's `windows:` list says."""

from __future__ import annotations

from typing import Literal

import msgspec

from operators.spec import Duration

Aggregate = Literal["count", "min", "max", "mean", "last", "std", "p50", "p95", "p99"]


class Window(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One entry of `windows:`; `every` stays a text ("1m", "5m", "1h", "shift") and is its name."""

    every: str
    lateness: Duration = 0
    correct_within: Duration = 0
    aggregates: list[Aggregate] = msgspec.field(
        default_factory=lambda: ["count", "min", "max", "mean", "last"]
    )
    metrics: list[str] | None = None  # default: all numeric ones
    by: list[str] = msgspec.field(default_factory=lambda: ["device_id"])
