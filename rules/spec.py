"""What a rule file says. This version runs `type: threshold`."""

from __future__ import annotations

from typing import Literal

import msgspec

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
