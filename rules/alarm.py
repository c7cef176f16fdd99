"""Alarm occurrences and the events that tell of them, after ISA-18.2 and OPC UA Part 9.

What this version does, for one rule of one device (the rows are `kernels.walk`'s; "clear" is the
clear condition, by default `not condition`; unknown changes nothing but stops a running delay):

    state      | what happens                          | next    | event
    -----------+---------------------------------------+---------+------------------------------
    idle       | condition true, on_delay 0            | active  | raised (an open one: closed first)
    idle       | condition true, on_delay              | rising  |
    rising     | condition false                       | idle    |
    rising     | condition unknown                     | rising  | (its clock stands still)
    rising     | onset + on_delay + pauses is reached  | active  | raised (an open one: closed first)
    active     | clear true, off_delay 0               | idle    | cleared (not to be acknowledged: closed)
    active     | clear true, off_delay                 | falling |
    falling    | clear false                           | active  |
    falling    | clear unknown                         | falling | (its clock stands still)
    falling    | the delay is over                     | idle    | cleared (not to be acknowledged: closed)
    any        | its rule was changed or removed       | (none)  | closed, if an occurrence was open
    rising     | the device's clock stepped            | idle    | (begins anew at this very reading)
    falling    | the device's clock stepped            | active  | (begins anew at this very reading)

The delay of a reading's device is found over before the reading itself is applied; each reading
is applied once, so it makes at most one transition of its own. An occurrence that is to be
acknowledged stays open after it cleared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from operators.batch import SEQ_PER_FRAME, AlarmEvent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def iso_ms(ns: int) -> str:
    """`2026-03-01T09:00:00.000Z`, cut down to milliseconds."""
    second, rest = divmod(ns, 1_000_000_000)
    return f"{_to_the_second(second)}.{rest // 1_000_000:03d}Z"


@lru_cache(maxsize=4096)
def _to_the_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


@dataclass(slots=True, eq=False)
class Subject:
    """Whose alarm: a rule of a device, with the facts that every event of it repeats."""

    device_id: str
    ruleId: str
    rule_version: str
    productId: str
    hub_id: str | None
    site_id: str | None
    customer_id: str | None
    severity: str
    by_hand: bool  # an occurrence is to be acknowledged

    @property
    def name(self) -> str:
        return f"{self.device_id}/{self.ruleId}"


@dataclass(slots=True, eq=False)
class Evidence:
    """What an event rests on: the device's last in-order reading at that moment."""

    expression: str
    values: Mapping[str, Any]
    quality: str
    position: int
    ingest_ns: int


class Alarms:
    """Writes events and keeps what they need: open occurrences, and how many events each subject
    has at its newest position."""

    def __init__(self, plant: str, shard: str) -> None:
        self.plant = plant
        self.shard = shard
        self.open: dict[str, dict[str, Any]] = {}  # subject -> the data of its newest event
        self.counted: dict[str, tuple[int, int]] = {}  # subject -> position, events there

    def event(
        self,
        transition: str,
        subject: Subject,
        onset_ns: int,
        event_ns: int,
        evidence: Evidence,
        message: str,
        *,
        active: bool,
        comment: str | None = None,
    ) -> AlarmEvent:
        """The event of one transition; an occurrence is open from `raised` until `closed`."""
        onset = iso_ms(onset_ns)
        alarm_id = _digest(subject.ruleId, subject.name, str(onset_ns // 1_000_000))
        before = self.open.get(subject.name)
        acknowledged = not subject.by_hand
        if before is not None and before["alarm_id"] == alarm_id:
            acknowledged = before["state"]["acknowledged"]
        data = {
            "alarm_id": alarm_id,
            "ruleId": subject.ruleId,
            "rule_version": subject.rule_version,
            "productId": subject.productId,
            "device_id": subject.device_id,
            "hub_id": subject.hub_id,
            "site_id": subject.site_id,
            "customer_id": subject.customer_id,
            "transition": transition,
            "severity": subject.severity,
            "onset_time": onset,
            "event_time": iso_ms(event_ns),
            "ingest_time": iso_ms(evidence.ingest_ns),
            "actor": None,
            "comment": comment,
            "state": {
                "active": active,
                "acknowledged": acknowledged,
                "latched": False,
                "shelved_until": None,
                "suppressed": False,
                "out_of_service": False,
            },
            "evidence": {
                "expression": evidence.expression,
                "values": dict(evidence.values),
                "quality": evidence.quality,
                "position": evidence.position,
            },
            "message": message,
        }
        return self._write(subject.name, data)

    def close(self, name: str, event_ns: int, position: int, comment: str) -> AlarmEvent | None:
        """`closed` for an open occurrence whose rule is no more, at the plant's change; it
        repeats the facts of its newest event. None where nothing is open."""
        before = self.open.get(name)
        if before is None:
            return None
        moment = iso_ms(event_ns)
        data = {
            **before,
            "transition": "closed",
            "event_time": moment,
            "ingest_time": moment,
            "comment": comment,
            "state": {**before["state"], "active": False},
            "evidence": {**before["evidence"], "position": position},
        }
        return self._write(name, data)

    def _write(self, name: str, data: dict[str, Any]) -> AlarmEvent:
        position = data["evidence"]["position"]
        at, count = self.counted.get(name, (-1, 0))
        count = count if at == position else 0
        self.counted[name] = (position, count + 1)
        sequence = f"{position * SEQ_PER_FRAME + count:020d}"
        if data["transition"] == "closed":
            self.open.pop(name, None)
        else:
            self.open[name] = data
        event = {
            "specversion": "1.0",
            "id": _digest(self.plant, self.shard, name, sequence),
            "type": f"org.penstock.alarm.{data['transition']}",
            "source": f"/plants/{self.plant}",
            "subject": name,
            "time": data["event_time"],
            "sequence": sequence,
            "partitionkey": name,
            "data": data,
        }
        return AlarmEvent(position, data["device_id"], data["ruleId"], sequence, event)

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        return {"open": self.open, "counted": {name: list(pair) for name, pair in self.counted.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `export` gave."""
        self.open = dict(state["open"])
        self.counted = {name: (pair[0], pair[1]) for name, pair in state["counted"].items()}

    def forget_before(self, newest: Mapping[str, int]) -> None:
        """Drop counts that can no longer matter: of subjects whose device (by its name) has had
        a reading at a later position, and no occurrence is open."""
        self.counted = {
            name: pair
            for name, pair in self.counted.items()
            if name in self.open or pair[0] >= newest.get(name.rpartition("/")[0], -1)
        }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8")).hexdigest()[:32]
