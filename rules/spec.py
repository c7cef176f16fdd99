"""What a rule file says, and what the rules stage is built from. This version runs `type: threshold`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from operators.expression.program import MetricType
from operators.spec import Duration, Expression

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITY_NUMBERS = {"critical": 900, "high": 700, "medium": 500, "low": 300, "info": 100}
"""OPC UA severities (OPC 10000-5, section 6.4.2: 1 to 1000)."""


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One rule of type threshold."""

    ruleId: str
    productId: str | list[str]
    type: Literal["threshold"]
    condition: Expression
    severity: Severity
    clear_condition: Expression | None = None
    on_delay: Duration = 0
    off_delay: Duration = 0
    deadband: float | None = None
    acknowledge: Literal["required", "none"] | None = None  # default: required down to medium
    message: str | None = None
    version: str = ""  # first 12 hex digits of SHA-256 of the canonical JSON; filled in by the reader

    @property
    def products(self) -> tuple[str, ...]:
        return (self.productId,) if isinstance(self.productId, str) else tuple(self.productId)

    @property
    def acknowledged_by_hand(self) -> bool:
        """Whether an occurrence stays open until someone acknowledges it: by default down to
        medium; an `info` rule is an event and never is."""
        if self.acknowledge is not None:
            return self.acknowledge == "required"
        return self.severity in ("critical", "high", "medium")


@dataclass(slots=True, eq=False)
class RuleProduct:
    """What rules need to know of a product.

    metrics: name -> type, in file order. params: the defaults of `params:`; a column of
    devices.csv of the same name overrides them by device. stale_after: nanoseconds after which a
    held value is unknown (3 x `expected_every`), 0 = never.
    """

    productId: str
    metrics: Mapping[str, MetricType]
    params: Mapping[str, float | str] = field(default_factory=dict)
    stale_after: int = 0


@dataclass(slots=True, eq=False)
class RulesSpec:
    """What the rules stage is built from.

    attributes: the rows of devices.csv by device_id, every column a text.
    """

    plant: str
    products: Mapping[str, RuleProduct]
    rules: Sequence[Rule]
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shard: str = "0"
