"""What the rules do and cost (flows/rule_status.py), and the figures of the alarm system, as metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from flows.alarm_figures import CHATTER, CHATTER_MS, PERIOD_MS, STALE_MS, milliseconds
from flows.rule_status import rule_rows
from flows.shard_view import HISTORY
from flows.views import Views

_OLDER: Final = 200  # events of devices whose clocks are late may stand before newer ones

COUNTERS: Final = {
    "evaluations": "readings that evaluated a rule",
    "raised": "times that a rule's condition raised, shadow rules and `info` included",
    "cleared": "times that it cleared",
    "active_s": "time in alarm of occurrences that have cleared, by event time",
    "overflows": "times that a duration of a condition had more samples than are kept",
}
_NAMES: Final = {"active_s": "alarm_seconds"}


def rule_families(status: Mapping[str, Any], active: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    """Metrics of rules. active: (ruleId, productId) -> how many occurrences are active now."""
    rows = rule_rows(status)
    labels = ["rule", "product"]
    for key, words in COUNTERS.items():
        family = CounterMetricFamily(f"penstock_rule_{_NAMES.get(key, key)}", words, labels=labels)
        for row in rows:
            family.add_metric([row["ruleId"], row["productId"]], row[key])
        yield family
    unknown = GaugeMetricFamily(
        "penstock_rule_unknown_ratio",
        "share of the readings looked at, since the flow's start, at which the condition was unknown",
        labels=labels,
    )
    for row in rows:
        if row["sampled"]:
            unknown.add_metric([row["ruleId"], row["productId"]], row["unknown"] / row["sampled"])
    yield unknown
    standing = GaugeMetricFamily("penstock_rule_active", "occurrences that are active now", labels=labels)
    for row in rows:
        of: tuple[str, str] = (row["ruleId"], row["productId"])
        standing.add_metric(list(of), active.get(of, 0))
    yield standing
    yield from _cost(status.get("rules") or {})


def _cost(told: Mapping[str, Any]) -> Iterator[Metric]:
    """Rules of one product are one program that shares what they have in common: no rule has a cost of
    its own that could be measured."""
    for key, label, words in (
        ("products", "product", "time in the conditions of a product's rules since the flow's start"),
        ("kinds", "kind", "time in the rules of a kind since the flow's start"),
    ):
        family = CounterMetricFamily(f"penstock_rules_{label}_seconds", words, labels=[label])
        for name, seconds in told.get(key, ()):
            family.add_metric([name], seconds)
        yield family


def active_rules(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """How many of the open alarms are active, by rule and product."""
    return Counter((row["ruleId"], row["productId"] or "") for row in rows if row["active"])


def figure_families(views: Views, rows: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """The figures of the alarm system as they are now. rows: the open alarms. They rest on the newest
    10,000 events, so a rate beyond that in ten minutes reads lower than it is."""
    now = int(time.time() * 1000)
    told = [row for row in rows if row["severity"] != "info"]
    active = [row for row in told if row["active"]]
    hidden = [row for row in active if row["shelved_until"] or row["suppressed"] or row["out_of_service"]]
    standing = GaugeMetricFamily(
        "penstock_alarms_standing", "active alarms that operators are told of", labels=["severity"]
    )
    shown = Counter(row["severity"] for row in active)
    shown.subtract(row["severity"] for row in hidden)
    for severity in ("critical", "high", "medium", "low"):
        standing.add_metric([severity], shown[severity])
    yield standing
    yield _gauge("hidden", "active alarms that are shelved, suppressed or out of service", len(hidden))
    waiting = sum(not row["acknowledged"] for row in told)
    yield _gauge("unacknowledged", "open alarms that wait to be acknowledged", waiting)
    stale = sum(now - milliseconds(row["since"]) > STALE_MS for row in active)
    yield _gauge("stale", "alarms active for more than 24 h", stale)
    raised = _raised(views, now - PERIOD_MS)
    yield _gauge("raised_10m", "alarms raised in the last ten minutes", len(raised))
    newest = Counter(subject for at, subject in raised if at > now - CHATTER_MS)
    chattering = sum(count >= CHATTER for count in newest.values())
    yield _gauge("chattering", "subjects raised three times or more in the last minute", chattering)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"penstock_alarms_{name}", words, value=value)


def _raised(views: Views, after: int) -> list[tuple[int, str]]:
    """Event time and subject of the alarms raised after a time that operators were told of, among
    the newest events; no further back than a run of older ones."""
    found = []
    older = 0
    for event in views.newest_alarm_events(HISTORY):
        data = event["data"]
        at = milliseconds(data["event_time"])
        older = older + 1 if at <= after else 0
        if older > _OLDER:
            break
        state = data["state"]
        hidden = state["shelved_until"] or state["suppressed"] or state["out_of_service"]
        if at > after and data["transition"] == "raised" and data["severity"] != "info" and not hidden:
            found.append((at, event["subject"]))
    return found
