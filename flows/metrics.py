"""Prometheus metrics of all processes, gathered when `/metrics` is asked for.

Every process writes a status file once a second (flows/status.py); the ledger stands in the
output store, written in the transaction of the results it counts, so its sums hold over crashes.
Names follow the Prometheus conventions: base units, `_total` for what only rises.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.rule_metrics import active_rules, figure_families, rule_families
from flows.status import read_status
from flows.views import Views
from operators.batch import LEDGER_TERMS
from operators.contract.sequence import MISSING_TOLD, TERMS

HELP = {
    "frames": "frames by outcome: in = decoded + rejected + filtered + held",
    "readings": "readings by outcome: decoded = accepted + late + rejected + filtered",
}

LAG_HELP = {
    "entries": "journal entries whose results the flow has not committed",
    "seconds": "age of the oldest of them",
}
SEQUENCE_HELP = {
    "sequence_missing": "readings that a device counted and that never came (contract.sequence)",
    "sequence_gaps": "gaps in these numbers",
    "sequence_restarts": "numbers that began anew",
}
WAITING_HELP = {
    "records": ("records", "records of the output log that wait for a target"),
    "bytes": ("bytes", "their bytes"),
    "oldest_s": ("oldest_seconds", "age of the oldest of them, by its ingest time"),
}


class PlantCollector(Collector):
    """What the status files and the ledger say, as metric families."""

    def __init__(
        self,
        status: Mapping[str, Mapping[str, Any]],
        ledger: Mapping[tuple[str, str], Mapping[str, int]],
        rejects: Mapping[tuple[str, str, str], int],
        alarms: Mapping[str, int],
        lag: Mapping[str, float],
        waiting: Mapping[str, Mapping[str, float]],
        views: Views,
        flow: Mapping[str, Any],
    ) -> None:
        """flow: what the flows of all shards tell of themselves, as one."""
        self.status = status
        self.flow = flow
        self.ledger = ledger
        self.rejects = rejects
        self.alarms = alarms
        self.lag = lag
        self.waiting = waiting
        self.views = views

    def collect(self) -> Iterator[Metric]:
        yield from self._ledger()
        yield from self._behind()
        yield from self._components()
        yield from self._stages()
        yield self._undeclared()
        yield from self._sequence()
        yield self._nodes()
        open_alarms = self.views.open_alarms()
        yield from rule_families(self.flow, active_rules(open_alarms))
        yield from figure_families(self.views, open_alarms)
        yield from self._numbers()

    def _ledger(self) -> Iterator[Metric]:
        for unit in ("frames", "readings"):
            family = CounterMetricFamily(
                f"penstock_{unit}", HELP[unit], labels=["source", "product", "outcome"]
            )
            for (source, product), terms in sorted(self.ledger.items()):
                for term in LEDGER_TERMS:
                    if term.startswith(unit) and term != "frames_held":  # a level, and no count
                        family.add_metric(
                            [source, product, term.removeprefix(f"{unit}_")], terms.get(term, 0)
                        )
            yield family
        held = GaugeMetricFamily(
            "penstock_frames_held", "frames that wait for an unknown device", labels=["source", "product"]
        )
        for (source, product), terms in sorted(self.ledger.items()):
            held.add_metric([source, product], terms.get("frames_held", 0))
        yield held
        reasons = CounterMetricFamily(
            "penstock_rejects", "rejected frames and readings", labels=["source", "product", "reason"]
        )
        for labels, count in sorted(self.rejects.items()):
            reasons.add_metric(list(labels), count)
        yield reasons
        events = CounterMetricFamily("penstock_alarm_events", "alarm events", labels=["transition"])
        for transition, count in sorted(self.alarms.items()):
            events.add_metric([transition], count)
        yield events

    def _behind(self) -> Iterator[Metric]:
        """How far the flow is behind the journal, and each target behind the output log."""
        for unit, words in LAG_HELP.items():
            yield GaugeMetricFamily(f"penstock_lag_{unit}", words, value=self.lag[unit])
        for key, (name, words) in WAITING_HELP.items():
            family = GaugeMetricFamily(f"penstock_backlog_{name}", words, labels=["target"])
            for target, numbers in sorted(self.waiting.items()):
                family.add_metric([target], numbers[key])
            yield family

    def _components(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("penstock_component_up", "1 while the process runs", labels=["component"])
        restarts = CounterMetricFamily(
            "penstock_component_restarts", "starts after the first", labels=["component"]
        )
        for name, child in self.status.get("supervisor", {}).get("components", {}).items():
            up.add_metric([name], float(child["state"] == "running"))
            restarts.add_metric([name], child["restarts"])
        yield up
        yield restarts
        age = GaugeMetricFamily(
            "penstock_status_age_seconds", "since a process last wrote its status", labels=["component"]
        )
        now = time.time()
        for name, body in self.status.items():
            if "updated_ms" in body:
                age.add_metric([name], max(0.0, now - body["updated_ms"] / 1000))
        yield age

    def _stages(self) -> Iterator[Metric]:
        stages = self.flow.get("stages", {})
        told = {
            "seconds": "time in a stage since the flow's start",
            "slices": "batches that a stage has seen since the flow's start",
            "rows": "frames in these batches",
        }
        for key, words in told.items():
            family = CounterMetricFamily(f"penstock_stage_{key}", words, labels=["stage"])
            for name, clock in stages.items():
                family.add_metric([name], clock[key])
            yield family

    def _undeclared(self) -> Metric:
        family = CounterMetricFamily(
            "penstock_undeclared_metrics",
            "readings with a metric that their product does not declare, since the flow's start",
            labels=["product", "metric"],
        )
        for row in self.flow.get("undeclared", []):
            family.add_metric([row["productId"], row["metric"]], row["count"])
        return family

    def _nodes(self) -> Metric:
        """What frames said of devices and their hubs, and could not be taken."""
        family = CounterMetricFamily(
            "penstock_nodes_refused", "frames whose list of nodes was left out", labels=["source", "product"]
        )
        for labels, terms in sorted(self.ledger.items()):
            if "nodes_refused" in terms:
                family.add_metric(list(labels), terms["nodes_refused"])
        return family

    def _sequence(self) -> Iterator[Metric]:
        """Numbers that never came, by product and, since its contract last changed, by device."""
        for term in TERMS:
            family = CounterMetricFamily(
                f"penstock_{term}", SEQUENCE_HELP[term], labels=["source", "product"]
            )
            for (source, product), terms in sorted(self.ledger.items()):
                if term in terms:
                    family.add_metric([source, product], terms[term])
            yield family
        devices = GaugeMetricFamily(
            "penstock_sequence_missing_by_device",
            f"numbers that never came, of the {MISSING_TOLD} devices that miss most",
            labels=["product", "device"],
        )
        for row in self.flow.get("missing", []):
            devices.add_metric([row["productId"], row["device_id"]], row["missing"])
        yield devices

    def _numbers(self) -> Iterator[Metric]:
        """Every further number of a status file, as penstock_KIND_KEY{component}."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for component, body in sorted(self.status.items()):
            kind, _, instance = component.partition("-")
            for key, value in _flat(body):
                name = f"penstock_{kind}_{key.removeprefix(kind + '_')}"
                if name not in families:
                    make = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                    families[name] = make(name, f"{key} of a {kind}", labels=["component"])
                families[name].add_metric([instance or kind], value)
        yield from families.values()


_OWN = {"pid", "updated_ms", "stages", "rules", "components", "started_ms"}


def _flat(body: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in body.items():
        if key in _OWN:
            continue
        if isinstance(value, Mapping):
            prefix = "" if key in ("metrics", "status", "extra") else f"{key}_"
            for below, number in _flat(value):
                yield f"{prefix}{below}", number
        elif isinstance(value, (int, float)) and key.isidentifier():
            yield key, float(value)


def metrics_text(views: Views) -> bytes:
    """The exposition text of a plant."""
    registry = CollectorRegistry()
    registry.register(
        PlantCollector(
            read_status(views.data),
            views.ledger(),
            views.rejects_by_reason(),
            views.alarms_by_transition(),
            views.lag(),
            views.waiting(),
            views,
            views.flow_status(),
        )
    )
    return generate_latest(registry)
