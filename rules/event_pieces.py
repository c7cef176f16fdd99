"""What plain events repeat, as bytes: of the plant, of each alarm, of each device.

`rules.event_kernels.write_events` puts the pieces one behind the other, in the order of FORMATS
section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from operators.batch import QUALITY_NAMES, Bytes, Int32, Int64
from operators.growing import grown
from rules import lifecycle_table as t
from rules.alarm import AlarmRule, Subject
from rules.standing import state_of

BYTES_AT_MOST: Final = 16 << 20
"""Of pieces that are kept; beyond it they are made anew, of what still has events."""

_json: Final = msgspec.json.Encoder().encode


class Pieces:
    """The pieces of one plant. Numbers of pieces are good until `made` rises."""

    def __init__(self, plant: str, shard: str) -> None:
        self.plant, self.shard = plant, shard
        self.made = 0
        self.begin()

    def begin(self) -> None:
        """Forget all pieces but those of the plant."""
        self.made += 1
        self.pool: Bytes = np.zeros(1 << 14, np.uint8)
        self.bounds: Int64 = np.zeros(1 << 8, np.int64)
        self.count = 0
        self.longest_alarm = self.longest_who = 0
        self._add(
            [
                b'{"specversion":"1.0","id":"',
                f"{self.plant}\x1f{self.shard}\x1f".encode(),
                b'","type":"org.penstock.alarm.',
                b'","source":' + _json(f"/plants/{self.plant}") + b',"subject":"',
                b'","time":"',
                b'","sequence":"',
                b'","partitionkey":"',
                b'","data":{"alarm_id":"',
                b',"transition":"',
                b',"onset_time":"',
                b'","event_time":"',
                b'","ingest_time":"',
                b'","actor":null,"comment":null,"state":',
                b'},"quality":"',
                b'","position":',
                b'},"message":',
                b"}}",
                b'{"alarm_id":"',
                b'"subject":"',
                b'","raised_time":"',
                b'","cleared_time":"',
                b'","cleared_time":null',
                b',"historical":0,"position":',
            ]
        )
        self.fixed = int(self.bounds[self.count])
        states = [state_of(flags) for flags in range(1 << len(t.DIMENSIONS))]
        self.states = self._many([_json(state) for state in states])
        self.qualities = self._many([name.encode() for name in QUALITY_NAMES])
        self.transitions = self._many([b"raised", b"cleared", b"closed"])

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return int(self.bounds[self.count])

    def alarm(self, alarm: AlarmRule, metrics: Sequence[str]) -> int:
        """The first piece of an alarm. metrics: of its condition."""
        name = f"/{alarm.ruleId}/{alarm.part}" if alarm.part else f"/{alarm.ruleId}"
        first = self._add(
            [
                name.encode(),
                _json(name)[1:-1],
                alarm.ruleId.encode(),
                b'","ruleId":' + _json(alarm.ruleId) + b',"rule_version":' + _json(alarm.version) + b",",
                b'","severity":' + _json(alarm.severity),
                b',"evidence":{"expression":' + _json(alarm.expression) + b',"values":{',
                b"" if alarm.message is None else _json(alarm.message),
                *(b"," * (at > 0) + _json(metric) + b":" for at, metric in enumerate(metrics)),
            ]
        )
        self.longest_alarm = max(self.longest_alarm, int(self.bounds[self.count] - self.bounds[first]))
        return first

    def devices(self, subjects: Sequence[Subject]) -> int:
        """The first piece of the first of some devices; each has WHO_PIECES. subjects: one of each."""
        pieces = []
        longest = 0
        for one in subjects:
            name = _json(one.who)
            facts = _json(
                {
                    "productId": one.productId,
                    "device_id": one.device_id,
                    "hub_id": one.hub_id,
                    "site_id": one.site_id,
                    "customer_id": one.customer_id,
                }
            )
            of_interval = b'","device_id":' + name + b',"productId":' + _json(one.productId or "")[:-1]
            raw = one.who.encode()
            pieces += [raw, name[1:-1], facts[1:-1], of_interval]
            longest = max(longest, len(raw) + 2 * len(name) + len(facts) + len(of_interval))
        self.longest_who = max(self.longest_who, longest)
        return self._add(pieces)

    def _many(self, pieces: Sequence[bytes]) -> Int32:
        first = self._add(pieces)
        return np.arange(first, first + len(pieces), dtype=np.int32)

    def _add(self, pieces: Sequence[bytes]) -> int:
        first, start = self.count, int(self.bounds[self.count])
        stop = start + sum(map(len, pieces))
        if stop > len(self.pool):
            self.pool = grown(self.pool, 2 * stop, 0)
        if first + len(pieces) >= len(self.bounds):
            self.bounds = grown(self.bounds, 2 * (first + len(pieces)) + 1, 0)
        self.pool[start:stop] = np.frombuffer(b"".join(pieces), np.uint8)
        self.bounds[first + 1 : first + len(pieces) + 1] = start + np.cumsum([len(one) for one in pieces])
        self.count += len(pieces)
        return first
