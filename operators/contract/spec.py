"""What a product's data contract says: `metrics:`, `contract:`, `live_within`, `expected_every`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from operators.spec import DAY, MINUTE, Duration

Breach = Literal["reject", "bad", "clamp"]


class Metric(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One metric of a product."""

    name: str = ""  # its key under `metrics:`; filled in by the reader
    type: Literal["number", "integer", "boolean", "string"] = "number"
    unit: str | None = None
    range: tuple[float | None, float | None] | None = None  # inclusive
    max_step: float | None = None  # between neighbours of a device
    values: list[str | int | float | bool] | None = None
    required: bool = False
    on_breach: Breach | None = None  # default: reject for type and required, bad for the others


class TimestampContract(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Plausibility of event time against ingest time."""

    max_future: Duration = 5 * MINUTE
    max_age: Duration = 30 * DAY
    on_breach: Breach = "reject"


class SequenceContract(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The metric that a device counts its readings with; after `wraps` - 1 comes 0 (None: never)."""

    metric: str
    wraps: int | None = None


class Contract(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The `contract:` section of a product."""

    timestamp: TimestampContract = msgspec.field(default_factory=TimestampContract)
    on_unknown_metric: Literal["count", "reject"] = "count"
    sequence: SequenceContract | None = None


@dataclass(frozen=True, slots=True)
class ProductContract:
    """All that the contract stage knows of one product.

    metrics: in file order. retired: device_ids whose status is `retired`; their readings are
    filtered. A product keeps its state over a plant change where all but `retired` is the same.
    """

    metrics: Mapping[str, Metric]
    contract: Contract
    live_within: Duration
    retired: frozenset[str] = field(default=frozenset(), compare=False)
