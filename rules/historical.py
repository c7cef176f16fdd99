"""Intervals of alarms, from raise to clear: rows of `alarm_intervals`.

Live occurrences give theirs by their events. Historical readings raise no alarm, but thresholds and
limits are evaluated over them on a track of its own, with its own held values, delays and past; of each
device those count that are newer than all before them on that track. No tick ends a delay there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from operators.batch import HISTORICAL, AlarmInterval, Int64, ReadingBatch, Slice, Ticks
from operators.growing import grown
from rules import historical_kernels as k
from rules.alarm import AlarmRule, alarm_id_of, iso_ms
from rules.context import Context
from rules.device_facts import DeviceFacts
from rules.place import RAISED, Transition
from rules.product import ProductRules
from rules.tables import Part, parts_of

_NEVER: Final = -(1 << 63)


class AlarmIntervals:
    """Writes `Slice.intervals`; finds no transition of a live alarm (`rules.place.Evaluator`)."""

    own_rules: Sequence[AlarmRule] = ()

    def __init__(self, context: Context) -> None:
        self.context = context
        self.facts = DeviceFacts(context)
        spec = context.spec
        self.parts: dict[str, list[Part]] = {}
        for name in spec.products:
            rules = [rule for rule in spec.rules if name in rule.products and rule.mode == "live"]
            parts = parts_of(rules, context.alarms)
            if parts:
                self.parts[name] = parts
        self.tracks: dict[str, ProductRules] = {}  # of products that ever had a historical reading
        self.newest: Int64 = np.full(64, _NEVER, np.int64)  # by slot
        self.raised: dict[str, int] = {}  # subject -> event time of `raised`, on the tracks
        self.raised_live: dict[str, str] = {}  # alarm_id -> event time of `raised`
        self.taken = 0  # events of the slice that are done with

    def run(self, item: Slice) -> list[Transition]:
        if (slot := self.facts.changed(item)) >= 0:
            for track in self.tracks.values():
                track.refresh(slot)
        for batch in item.readings:
            if len(batch) and batch.productId in self.parts and (batch.flags & HISTORICAL).any():
                self._historical(item, batch)
        item.intervals.sort(key=lambda one: one.position)
        return []

    def look_again(self, device: str, row: Mapping[str, str]) -> None:
        """Master data of a device have changed."""
        slot = self.facts.devices.slots.get(device)
        if slot is not None:
            for track in self.tracks.values():
                track.look_again(slot)

    def _historical(self, item: Slice, batch: ReadingBatch) -> None:
        self.newest = grown(self.newest, int(batch.device.max()) + 1, _NEVER)
        keep = np.zeros(len(batch), np.bool_)
        if not k.rising(batch.device, batch.ts_ns, batch.flags, self.newest, keep):
            return
        chosen = batch.take(keep)
        chosen.ticks = Ticks.none()
        track = self._track(batch.productId)
        for one in track.run(item, chosen) or ():
            item.intervals.append(self._interval(one))
        track.settle()

    def _track(self, name: str) -> ProductRules:
        track = self.tracks.get(name)
        if track is None:
            context, spec = self.context, self.context.spec
            track = self.tracks[name] = ProductRules(
                spec.products[name],
                self.parts[name],
                spec.joined,
                context.devices,
                context.samples,
                context.parameters,
                spec.timezone,
            )
        return track

    def _interval(self, one: Transition) -> AlarmInterval:
        subject, evidence = one.subject, one.evidence
        if one.kind == RAISED:
            raised, cleared = one.time_ns, None
            self.raised[subject.name] = raised
        else:
            raised, cleared = self.raised.pop(subject.name, one.onset_ns), iso_ms(one.time_ns)
        row = {
            "alarm_id": alarm_id_of(subject, one.onset_ns),
            "ruleId": subject.rule.ruleId,
            "rule_version": subject.rule.version,
            "subject": subject.name,
            "device_id": subject.device_id,
            "productId": subject.productId or "",
            "severity": subject.rule.severity,
            "onset_time": iso_ms(one.onset_ns),
            "raised_time": iso_ms(raised),
            "cleared_time": cleared,
            "historical": 1,
            "position": evidence.position,
        }
        return AlarmInterval(evidence.position, row)

    def settle(self, item: Slice) -> None:
        """The events of the slice are written."""
        self.take(item)
        self.taken = 0

    def take(self, item: Slice) -> None:
        """Intervals of the slice's events from `taken` on: those of live occurrences that begin or end."""
        events, self.taken = item.alarms[self.taken :] if self.taken else item.alarms, len(item.alarms)
        for event in events:
            if event.shadow:
                continue
            data = event.event["data"]
            alarm_id, transition = data["alarm_id"], data["transition"]
            if transition == "raised":
                self.raised_live[alarm_id] = data["event_time"]
            elif transition not in ("cleared", "closed") or alarm_id not in self.raised_live:
                continue
            over = transition != "raised"
            raised = self.raised_live.pop(alarm_id) if over else data["event_time"]
            row = {
                "alarm_id": alarm_id,
                "ruleId": data["ruleId"],
                "rule_version": data["rule_version"],
                "subject": event.event["subject"],
                "device_id": data["device_id"],
                "productId": data["productId"] or "",
                "severity": data["severity"],
                "onset_time": data["onset_time"],
                "raised_time": raised,
                "cleared_time": data["event_time"] if over else None,
                "historical": 0,
                "position": event.position,
            }
            item.intervals.append(AlarmInterval(event.position, row))

    def counters(self) -> Mapping[str, int]:
        return {}

    def export(self) -> dict[str, Any]:
        return {
            "tracks": {name: track.export() for name, track in self.tracks.items()},
            "newest": self.newest,
            "raised": self.raised,
            "raised_live": self.raised_live,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        for name, track in kept["tracks"].items():
            if name in self.parts:
                self._track(name).load(track)
        self.newest = np.array(kept["newest"])
        self.raised = dict(kept["raised"])
        self.raised_live = dict(kept["raised_live"])
