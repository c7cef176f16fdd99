"""Looking at a plant: what stands in its data directory, as plain JSON objects.

`Views` only reads: the output stores that the flows commit, the journals, the status files and
alarms.jsonl, of all shards as if they were one. It keeps no state of its own but caches, so that the
server, `penstock top` and a test see the same, and a plant that does not run can be looked at as
well. Nothing it gives is older than half a second beyond the flow's last commit. Its methods may be
called from any thread.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from connectors.errors import ConfigError
from connectors.journal.output_store import OutputReader
from flows.alarm_figures import FigureEvent, figures, read_history
from flows.alarm_filters import SEVERITIES, AlarmFilters
from flows.flow_status import merged_status
from flows.health import is_running, readiness
from flows.master_rows import with_changes
from flows.plant_file import Plant
from flows.plant_reader import load_bundle
from flows.rule_status import rule_rows
from flows.shard_view import ALL_ALARMS, HISTORY, ShardView
from flows.shards import shard_folders
from flows.status import component_name, read_status
from flows.submodel_index import SubmodelIndex
from operators.batch import Ledger, Waiting
from operators.contract.messages import time_text
from operators.state.store import DeviceState, metrics_by_name, standing_products

PLANT_S: Final = 0.5  # how long an applied plant is taken for the newest
# a number with one shard; with several theirs, in order, with points between
EventCursor = int | str


class Views:
    """A read-only view of the data directory `data`, which need not be complete (yet)."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.shards = [ShardView(folder) for folder in shard_folders(data)]
        self._lock = threading.Lock()
        self._plant: Plant | None = None
        self._plant_now: tuple[str, Any, Plant] | None = None
        self._plant_at = float("-inf")
        self._index: SubmodelIndex | None = None

    def close(self) -> None:
        """Let go of the stores."""
        for shard in self.shards:
            shard.close()

    def plant(self) -> Plant | None:
        """The newest applied plant; None before the first."""
        journal = self.shards[0].journal()
        with self._lock:
            if journal is None or time.monotonic() - self._plant_at < PLANT_S:
                return self._plant
            applied = journal.last_plant()
            if applied is not None and (self._plant is None or self._plant.sha256 != applied.sha256):
                self._plant = load_bundle(applied.files)
            self._plant_at = time.monotonic()
            return self._plant

    def plant_now(self) -> Plant | None:
        """The same, with master data as changes have made them."""
        plant = self.plant()
        if plant is None:
            return None
        # most changes are in every shard; what a shard registers by itself is a device of its own
        changed = [one for shard in self.shards for one in shard.read(OutputReader.master) or []]
        if not changed:
            return plant
        with self._lock:
            if self._plant_now is None or self._plant_now[:2] != (plant.sha256, changed):
                self._plant_now = plant.sha256, changed, with_changes(plant, changed)
            return self._plant_now[2]

    def master(self, table: str) -> list[dict[str, str]]:
        """Rows of devices, sites or customers as they are, in their order."""
        plant = self.plant_now()
        return [] if plant is None else [dict(row) for row in getattr(plant.master, table).values()]

    def answer(self, action_id: str) -> dict[str, Any] | None:
        """What the flows answer to an action that stands in every shard's journal; None as long as one
        of them has not. It is accepted if one accepts it: an alarm is of one shard."""
        there = [output for shard in self.shards if (output := shard.output()) is not None]
        told = [one for output in there if (one := output.answer(action_id)) is not None]
        accepted = next((one for one in told if one["accepted"]), None)
        if accepted is not None or not told or len(told) < len(there):  # of shards that run here
            return accepted
        # the shard that knows the alarm says why not; the others only that they do not know it
        return next((one for one in told if one.get("subject")), told[0])

    def params(self) -> list[dict[str, Any]]:
        """What operators have set of devices' parameters, as the flows have committed it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for shard in self.shards:
            for row in shard.read(OutputReader.params) or []:
                found.setdefault((row["device_id"], row["param"]), row)
        return [found[key] for key in sorted(found)]

    # -- counts

    def ledger(self) -> Ledger:
        """{(source, product): {term: count}} since the plant's first frame."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for shard in self.shards:
            for key, terms in (shard.read(OutputReader.ledger) or {}).items():
                found.setdefault(key, Counter()).update(terms)
        return {key: dict(terms) for key, terms in found.items()}

    def ledger_rows(self) -> list[dict[str, Any]]:
        """The ledger as a list of objects."""
        return [
            {"source": source, "productId": product, **terms}
            for (source, product), terms in sorted(self.ledger().items())
        ]

    def rejects_by_reason(self) -> dict[tuple[str, str, str], int]:
        """{(source, product, reason): count} since the plant's first frame."""
        found: Counter[tuple[str, str, str]] = Counter()
        for shard in self.shards:
            found.update(shard.read(OutputReader.reject_counts) or {})
        return dict(found)

    def alarms_by_transition(self) -> dict[str, int]:
        """{transition: count} since the plant's first frame."""
        found: Counter[str] = Counter()
        for shard in self.shards:
            found.update(shard.read(OutputReader.alarm_counts) or {})
        return dict(found)

    def status(self) -> dict[str, Any]:
        """Everything that `top` shows: health, ledger, counts, lag, what waits for each target."""
        status = read_status(self.data)
        plant = self.plant()
        return {
            "at_ms": int(time.time() * 1000),
            "plant": plant.name if plant else None,
            "running": is_running(status),
            "health": readiness(self.data),
            "ledger": self.ledger_rows(),
            "rejects": [
                {"source": source, "productId": product, "reason": reason, "count": count}
                for (source, product, reason), count in sorted(self.rejects_by_reason().items())
            ],
            "alarms": self.alarms_by_transition(),
            "open_alarms": sum(len(shard.read(OutputReader.open_alarms) or []) for shard in self.shards),
            "devices": sum(len(shard.read(OutputReader.devices) or []) for shard in self.shards),
            "lag": self.lag(),
            "waiting": self.waiting(),
        }

    def flow_status(self) -> dict[str, Any]:
        """What the flows have told of themselves, as one."""
        return merged_status([shard.flow_status() for shard in self.shards])

    def lag(self) -> dict[str, float]:
        """How far the flows are behind their journals: entries, and seconds since the oldest entry
        whose results are not committed was journaled. Shards that run on another machine do not count."""
        here = read_status(self.data).get("supervisor", {}).get("components", {})
        own = [one for one in self.shards if component_name(one.folder, "flow") in here]
        found = [shard.lag() for shard in own or self.shards]
        return {
            "entries": sum(one["entries"] for one in found),
            "seconds": max(one["seconds"] for one in found),
        }

    def waiting(self) -> dict[str, dict[str, float]]:
        """By target: records and bytes that wait for it, and the age in seconds of the oldest."""
        found: dict[str, dict[str, float]] = {}
        for shard in self.shards:
            for name, more in shard.waiting().items():
                known = found.setdefault(name, {"records": 0, "bytes": 0, "oldest_s": 0.0})
                known["records"] += more["records"]
                known["bytes"] += more["bytes"]
                known["oldest_s"] = max(known["oldest_s"], more["oldest_s"])
        return found

    def drained(self, *, to_the_end: bool = False) -> bool:
        """The flows have committed what they made of their journals' last frames (`to_the_end`: of their
        last entries, which a journal that runs never stays at), and every target holds all that
        stands in the output logs."""
        return all(shard.drained(to_the_end=to_the_end) for shard in self.shards)

    # -- alarms, devices, rejects, rules

    def open_alarms(self, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        """Alarms that are not closed, the gravest and then the newest first."""
        events = (event for shard in self.shards for event in shard.read(OutputReader.open_alarms) or [])
        found = filters.rows(_alarm_row(event) for event in events)
        found.sort(key=lambda row: (row["since"], row["subject"]), reverse=True)
        found.sort(key=lambda row: _rank(row["severity"]))
        return found

    def alarm_history(self, limit: int, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        """The newest events of alarms.jsonl, newest first; with filters those among the newest
        10,000."""
        looked = limit if filters == ALL_ALARMS else HISTORY
        found = _newest_first([shard.last_events(looked) for shard in self.shards])
        return filters.events(found)[:limit]

    def alarm_events(
        self, after: EventCursor | None, limit: int, filters: AlarmFilters = ALL_ALARMS
    ) -> tuple[EventCursor, list[dict[str, Any]]]:
        """Events in the order of their finding (those of several shards by their ingest time), and what
        to ask with for those that follow. Raises `ConfigError` for what is no such thing.

        after: of the call before; None: the newest. Of each shard at most `limit` events are looked at;
        the output log holds the newest 10,000, those before are passed over.
        """
        numbers = _numbers(after, len(self.shards))
        found = [
            shard.alarm_events(number, limit, filters)
            for shard, number in zip(self.shards, numbers, strict=True)
        ]
        events = [event for _, one in found for event in one]
        if len(found) == 1:
            return found[0][0], events
        return ".".join(str(number) for number, _ in found), sorted(events, key=_ingested)

    def newest_alarm_events(self, limit: int) -> Iterator[dict[str, Any]]:
        """The newest events of the output logs, newest first, decoded as they are asked for."""
        events = [shard.newest_alarm_events(limit) for shard in self.shards]
        return events[0] if len(events) == 1 else heapq.merge(*events, key=_ingested, reverse=True)

    def find_alarms(self, prefix: str) -> list[dict[str, Any]]:
        """The newest `data` of each alarm whose id begins with `prefix`, among the open ones and the
        newest 10,000 events."""
        return [data for shard in self.shards for data in shard.find_alarms(prefix)]

    def shadow_events(self, limit: int, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        """The newest events of rules in mode shadow that the output log still holds, newest first."""
        return _newest_first([shard.shadow_events(limit, filters) for shard in self.shards])[:limit]

    def alarm_figures(self, start_ms: int | None, end_ms: int | None) -> dict[str, Any]:
        """Alarm-system figures of the events in alarms.jsonl; end_ms None: now, or, of a plant that does
        not run, the last event."""
        history = read_history(self._written_events())
        if end_ms is None:
            last = history.last if history.last is not None and not self.is_running() else None
            end_ms = int(time.time() * 1000) if last is None else last + 1
        return figures(history, start_ms, end_ms)

    def _written_events(self) -> Iterator[FigureEvent]:
        # an occurrence is of one shard, so it makes no difference which shard's events come first
        for shard in self.shards:
            yield from shard.written_events()

    def is_running(self) -> bool:
        """Whether the plant's supervisor is there."""
        return is_running(read_status(self.data))

    def devices(self) -> list[dict[str, Any]]:
        """Devices of the master data in file order, then others that have been heard, then those that
        frames wait for until they are known."""
        plant = self.plant_now()
        heard = self._records()
        rows = plant.master.devices if plant else {}
        found = [_device_row(name, row, heard.pop(name, [])) for name, row in rows.items()]
        found.extend(_device_row(name, {}, heard[name]) for name in sorted(heard))
        waiting = [one for shard in self.shards for one in shard.read(OutputReader.waiting) or []]
        found.extend(_held_row(one) for one in waiting)
        missing = {one["device_id"]: one["missing"] for one in self.flow_status().get("missing", [])}
        for one in found:
            one["missing"] = missing.get(one["device_id"], 0)
        return found

    def state(self, device_id: str) -> dict[str, Any] | None:
        """{metric: {"value", "quality", "time", "position"}}; None for a device never heard. A metric of
        another product of the device, of a name that is taken, stands as `productId.metric`."""
        records = [one for shard in self.shards for one in shard.records_of(device_id)]
        return _state_object(records) if records else None

    def states(self) -> dict[str, dict[str, Any]]:
        """`state` of every device that has been heard, by name."""
        return {name: _state_object(records) for name, records in sorted(self._records().items())}

    def device_history(self, device_id: str) -> list[dict[str, Any]] | None:
        """What master data say of a device, as of event time: {"from", "until", "row"}, the newest first;
        None for the beginning of time, and for its end. None for a device that they do not know."""
        plant = self.plant_now()
        row = plant.master.devices.get(device_id) if plant is not None else None
        if row is None:
            return None
        told = (shard.read(lambda output: output.past("devices", device_id)) for shard in self.shards)
        past = next((one for one in told if one), [])
        begins = [None, *(time_text(until) for until, _ in past)]
        rows = [*(one for _, one in past), dict(row)]
        found = [
            {"from": begin, "until": until, "row": one}
            for begin, until, one in zip(begins, [*begins[1:], None], rows, strict=True)
        ]
        return found[::-1]

    def rejects(self, limit: int, reason: str | None = None) -> list[dict[str, Any]]:
        """The newest rejects that the output logs still hold, newest first (FORMATS section 5); with
        several shards each names its own."""
        found = [shard.rejects(limit, reason) for shard in self.shards]
        if len(found) == 1:
            return found[0]
        named = [[{**line, "shard": number} for line in lines] for number, lines in enumerate(found)]
        return _newest_first(named)[:limit]

    def rules(self) -> list[dict[str, Any]]:
        """Rules of the applied plant, with what the flow has told of each: `counts` by product, and how
        many occurrences are active now."""
        plant = self.plant()
        status = self.flow_status()
        active = Counter(row["ruleId"] for row in self.open_alarms() if row["active"])
        counts: dict[str, list[dict[str, Any]]] = {}
        for row in rule_rows(status):
            counts.setdefault(row.pop("ruleId"), []).append(row)
        return [
            {
                "ruleId": rule.ruleId,
                "productId": list(rule.products),
                "type": rule.type,
                "condition": "; ".join(rule.conditions.values()),
                "severity": rule.severity_of(next(iter(rule.conditions), "")),
                "rule_version": rule.version,
                "mode": rule.mode,
                "active": active[rule.ruleId],
                "counts": counts.get(rule.ruleId, []),
            }
            for rule in (plant.rules if plant else [])
        ]

    def _record(self, device_id: str, productId: str) -> DeviceState | None:
        """What is known of a device as a product."""
        records = (one for shard in self.shards for one in shard.records_of(device_id))
        return next((one for one in records if one.productId == productId), None)

    def _records(self) -> dict[str, list[DeviceState]]:
        """What is known of every device that has been heard, once a product."""
        found: dict[str, list[DeviceState]] = {}
        for shard in self.shards:
            for one in shard.records():
                found.setdefault(one.device_id, []).append(one)
        return found

    # -- submodels

    def submodels(self, start: int, limit: int, id_short: str | None = None) -> list[dict[str, Any]]:
        """Submodels from ordinal `start` on, by product, device and the mapping's order."""
        index = self._submodel_index()
        return [] if index is None else index.page(start, limit, id_short, self._record)

    def submodel(self, identifier: str) -> dict[str, Any] | None:
        """The submodel of an id; None where there is none."""
        index = self._submodel_index()
        return None if index is None else index.find(identifier, self._record)

    def _submodel_index(self) -> SubmodelIndex | None:
        plant = self.plant_now()
        if plant is None:
            return None
        index = self._index
        known = sum(shard.read(OutputReader.state_count) or 0 for shard in self.shards)
        if index is None or not index.holds(plant, known):
            mapped = any(product.aas is not None for product in plant.products.values())
            heard = [one for shard in self.shards for one in shard.heard()] if mapped else []
            index = self._index = SubmodelIndex(plant, heard, known)
        return index


def _numbers(after: EventCursor | None, shards: int) -> Sequence[int | None]:
    """The number that each shard's events follow; None: its newest."""
    if after is None:
        return [None] * shards
    parts = str(after).split(".")
    sound = all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts)
    if len(parts) != shards or not sound:
        raise ConfigError(f"after: '{str(after)[:60]}' is none of this plant's; take `last` of an answer")
    return [int(part) for part in parts]


def _ingested(event: Mapping[str, Any]) -> str:
    """When the reading behind an event, or a reject's frame, was journaled."""
    data = event.get("data", event)
    return str(data["ingest_time"] or data.get("event_time") or "")


def _newest_first(found: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Lists that are each newest first, as one."""
    return list(found[0]) if len(found) == 1 else sorted(_all(found), key=_ingested, reverse=True)


def _all(found: Iterable[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for one in found:
        yield from one


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _alarm_row(event: Mapping[str, Any]) -> dict[str, Any]:
    data = event["data"]
    return {
        "subject": event["subject"],
        "device_id": data["device_id"],
        "ruleId": data["ruleId"],
        "productId": data["productId"],
        "severity": data["severity"],
        "hub_id": data["hub_id"],
        "site_id": data["site_id"],
        **data["state"],
        "since": data["onset_time"],
        "event_time": data["event_time"],
        "transition": data["transition"],
        "actor": data["actor"],
        "comment": data["comment"],
        "message": data["message"],
        "alarm_id": data["alarm_id"],
    }


def _device_row(name: str, row: Mapping[str, str], records: Sequence[DeviceState]) -> dict[str, Any]:
    times = (metric.time_ns for record in records for metric in record.metrics.values())
    newest = max(times, default=None)
    counted = standing_products(records)
    return {
        "device_id": name,
        "productId": row.get("productId") or (counted[0].productId if counted else None),
        "hub_id": row.get("hub_id") or None,
        "site_id": row.get("site_id") or None,
        "name": row.get("name") or None,
        "status": (row.get("status") or "in_service") if row else "unlisted",
        "last_heard": None if newest is None else time_text(newest),
        "metrics": sum(len(record.metrics) for record in counted),
        "alarms": sorted({ruleId for record in records for ruleId in record.alarms}),
        "held": 0,
    }


def _held_row(one: Waiting) -> dict[str, Any]:
    return {
        **_device_row(one.device_id, {}, ()),
        "productId": one.productId or None,
        "status": "held",
        "held": one.frames,
        "held_since": time_text(one.since_ns),
        "source": one.source,
        "topic": one.topic,
    }


def _state_object(records: Sequence[DeviceState]) -> dict[str, Any]:
    return {
        name: {
            "value": metric.value,
            "quality": metric.quality_name,
            "time": time_text(metric.time_ns),
            "position": metric.position,
        }
        for name, metric in metrics_by_name(records).items()
    }
