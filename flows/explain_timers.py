"""What the rules stage holds of one rule and device: its phase, and the delay that runs."""

from __future__ import annotations

from typing import Any, Final

from connectors.journal.lines import iso_time
from rules import kernels as k
from rules.spec import Rule
from rules.step import RulesLogic

PHASES: Final = {k.IDLE: "idle", k.RISING: "rising", k.ACTIVE: "active", k.FALLING: "falling"}


def delay_of(logic: RulesLogic, product: str, rule: Rule, slot: int) -> list[dict[str, Any]]:
    """Of each limit of the rule ("" where it has none): {"what", "part", "seconds", "phase", "since",
    "due", "paused"}; since is null where no delay runs."""
    rules = logic.thresholds.products.get(product)
    device = -1 if rules is None else rules.index(slot)
    if rules is None or device < 0:
        return []
    delays = rules.delays
    found = []
    for at, part in enumerate(rules.parts):
        if part.rule.ruleId != rule.ruleId:
            continue
        phase = int(delays.phase[at, device])
        runs = phase & 1 == 1
        falling = phase & 3 == k.FALLING
        found.append(
            {
                "what": "off_delay" if falling else "on_delay",
                "part": part.alarm.part,
                "seconds": (rule.off_delay if falling else rule.on_delay) / 1e9,
                "phase": PHASES[phase & 3],
                "since": iso_time(delays.field(device, at, k.SINCE)) if runs else None,
                "due": iso_time(delays.field(device, at, k.DUE)) if runs else None,
                "paused": iso_time(delays.field(device, at, k.PAUSED_AT))
                if runs and phase & k.PAUSED
                else None,
            }
        )
    return found
