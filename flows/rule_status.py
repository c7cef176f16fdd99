"""What the flow tells of its rules in its status file: a row each, about 60 KB for 1,000 rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rules.step import RulesLogic

_COLUMNS: Final = (
    "ruleId",
    "productId",
    "evaluations",
    "raised",
    "cleared",
    "active_s",
    "sampled",
    "unknown",
    "overflows",
)


def told_of_rules(logic: RulesLogic) -> dict[str, Any]:
    """What the flow's status file says of the rules."""
    measured = logic.measured()
    rows = [
        [
            *key,
            one.evaluations,
            one.raised,
            one.cleared,
            round(one.active_ns / 1e9, 3),
            one.sampled,
            one.unknown,
            one.overflows,
        ]
        for key, one in sorted(measured.rules.items())
    ]
    return {
        "columns": list(_COLUMNS),
        "rows": rows,
        "products": sorted((name, round(spent, 6)) for name, spent in measured.product_seconds.items()),
        "kinds": sorted((name, round(spent, 6)) for name, spent in measured.kind_seconds.items()),
    }


def rule_rows(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a flow's status, as objects."""
    told = status.get("rules") or {}
    return [dict(zip(told["columns"], row, strict=True)) for row in told.get("rows", ())]
