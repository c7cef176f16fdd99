"""Alarm events made by hand, as lines of alarms.jsonl."""

from __future__ import annotations

import hashlib
from typing import Any

START_MS = 1_772_355_600_000  # 2026-03-01T09:00:00Z


def iso(second: float) -> str:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp((START_MS + round(second * 1000)) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(
    second: float,
    transition: str,
    subject: str,
    severity: str = "high",
    *,
    onset: float | None = None,
    acknowledged: bool = True,
    active: bool | None = None,
    **state: Any,
) -> dict[str, Any]:
    """An event `second` seconds after the start; `onset` (default: the second) makes its alarm_id."""
    device, _, rule = subject.partition("/")
    began = second if onset is None else onset
    return {
        "id": hashlib.sha256(f"{subject}{second}{transition}".encode()).hexdigest()[:32],
        "subject": subject,
        "time": iso(second),
        "data": {
            "alarm_id": hashlib.sha256(f"{subject}{began}".encode()).hexdigest()[:32],
            "ruleId": rule,
            "productId": "press-v1",
            "device_id": device,
            "hub_id": None,
            "site_id": None,
            "transition": transition,
            "severity": severity,
            "onset_time": iso(began),
            "event_time": iso(second),
            "actor": None,
            "comment": None,
            "state": {
                "active": transition == "raised" if active is None else active,
                "acknowledged": acknowledged,
                "latched": False,
                "shelved_until": None,
                "suppressed": False,
                "out_of_service": False,
                **state,
            },
            "message": f"{rule} of {device}",
        },
    }
