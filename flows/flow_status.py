"""What the flows of all shards tell of themselves, as what one flow would tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from operators.contract.sequence import MISSING_TOLD


def merged_status(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The status of one flow as it is; of several their sums, by stage, rule, product and metric, and
    of the devices that miss most readings the worst. Only what is told by each of them."""
    if len(told) == 1:
        return told[0]
    return {
        "devices": sum(one.get("devices", 0) for one in told),
        "stages": _stages(told),
        "rules": _rules([one["rules"] for one in told if one.get("rules")]),
        "undeclared": _undeclared(told),
        "missing": sorted(
            (row for one in told for row in one.get("missing", [])),
            key=lambda row: (-row["missing"], row["device_id"]),
        )[:MISSING_TOLD],
    }


def _stages(told: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, Counter[str]] = {}
    for one in told:
        for name, clock in one.get("stages", {}).items():
            found.setdefault(name, Counter()).update(clock)
    return {name: dict(clock) for name, clock in found.items()}


def _rules(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows of (ruleId, productId, counts...), and seconds by product and kind (flows/rule_status.py)."""
    if not told:
        return {}
    rows: dict[tuple[str, str], list[float]] = {}
    for one in told:
        for rule, product, *counts in one["rows"]:
            known = rows.get((rule, product))
            rows[rule, product] = (
                counts if known is None else [a + b for a, b in zip(known, counts, strict=True)]
            )
    found: dict[str, Any] = {
        "columns": told[0]["columns"],
        "rows": [[*key, *counts] for key, counts in sorted(rows.items())],
    }
    for key in ("products", "kinds"):
        seconds: Counter[str] = Counter()
        for one in told:
            seconds.update(dict(one[key]))
        found[key] = sorted(seconds.items())
    return found


def _undeclared(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str]] = Counter()
    for one in told:
        counts.update({(row["productId"], row["metric"]): row["count"] for row in one.get("undeclared", [])})
    return [
        {"productId": product, "metric": metric, "count": count}
        for (product, metric), count in sorted(counts.items())
    ]
