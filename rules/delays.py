"""Where every rule of every device stands, and the delays that run.

Most rules of most devices are idle and have nothing to remember but that, one byte each. What more is
known lies in blocks, one for a device that has any rule that is not idle; a block goes back when
all of them are idle again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from operators.batch import Bytes, Int32, Int64
from operators.growing import grown, room
from rules import kernels as k

_FIRST: Final = 16


class Delays:
    """State of R rules by device, as `kernels.walk` takes it.

    phase: uint8[R, D]. block: int32[D] into the pool, -1 where all rules of the device are idle;
    running: int32[D], how many are not. pool: int64[B, R, FIELDS]; free: int32[B], of which the
    first free_count[0] are free blocks. busy: int64[R], devices not idle; next_tick: int64[R].
    """

    def __init__(self, rules: int) -> None:
        self.rules = rules
        self.phase: Bytes = np.zeros((rules, 0), np.uint8)
        self.block: Int32 = np.zeros(0, np.int32)
        self.running: Int32 = np.zeros(0, np.int32)
        self.pool: Int64 = np.zeros((0, rules, k.FIELDS), np.int64)
        self.free: Int32 = np.zeros(0, np.int32)
        self.free_count: Int64 = np.zeros(1, np.int64)
        self.busy: Int64 = np.zeros(rules, np.int64)
        self.next_tick: Int64 = np.full(rules, k.NEVER, np.int64)

    def grow(self, capacity: int) -> None:
        """Room for `capacity` devices."""
        known = self.phase.shape[1]
        phase = room((self.rules, capacity), np.uint8)
        phase[:, :known] = self.phase
        phase[:, known:] = k.IDLE
        self.phase = phase
        self.block = grown(self.block, capacity, -1)
        self.running = grown(self.running, capacity, 0)

    def add_blocks(self, least: int = 1) -> None:
        """More free blocks: at least so many."""
        known = len(self.pool)
        more = max(least, _FIRST, known // 2)
        self.pool = grown(self.pool, known + more, 0)
        self.free = grown(self.free, known + more, 0)
        count = int(self.free_count[0])
        self.free[count : count + more] = np.arange(known + more - 1, known - 1, -1)
        self.free_count[0] += more

    def field(self, device: int, rule: int, field: int) -> int:
        """One of the kernel's fields (SINCE, ONSET, ...) of a rule that is not idle; 0 of one that is."""
        block = int(self.block[device])
        return int(self.pool[block, rule, field]) if block >= 0 else 0

    def export(self, count: int) -> dict[str, Any]:
        """What a snapshot holds, of the first `count` devices."""
        devices = np.flatnonzero(self.block[:count] >= 0)
        return {
            "phase": np.ascontiguousarray(self.phase[:, devices]),
            "devices": devices,
            "fields": self.pool[self.block[devices]],
        }

    def load(self, kept: Mapping[str, Any], then: Sequence[int]) -> None:
        """Take over what `export` gave; then: for each rule its number at that time, -1 where it is
        new or begins anew."""
        devices, fields = kept["devices"], kept["fields"]
        self.add_blocks(len(devices))
        for at, device in enumerate(devices.tolist()):
            phases = [int(kept["phase"][was, at]) if was >= 0 else k.IDLE for was in then]
            running = sum(phase & 3 != k.IDLE for phase in phases)
            if not running:
                continue
            self.free_count[0] -= 1
            block = int(self.free[self.free_count[0]])
            self.block[device], self.running[device] = block, running
            self.phase[:, device] = phases
            for rule, was in enumerate(then):
                if was >= 0:
                    self.pool[block, rule] = fields[at, was]
        self.count()

    def end(self, device: int) -> None:
        """Nothing of a device runs on; `count` is to be called afterwards."""
        if self.block[device] >= 0:
            self.free[self.free_count[0]] = self.block[device]
            self.free_count[0] += 1
            self.block[device] = -1
        self.running[device] = 0
        self.phase[:, device] = k.IDLE

    def count(self) -> None:
        """Count what is not idle, and look for the next delay that a tick may end."""
        self.busy[:] = ((self.phase & 3) != k.IDLE).sum(axis=1)
        for rule in range(self.rules):
            phases_of = self.phase[rule]
            waiting = np.flatnonzero((phases_of & 1 == 1) & (phases_of & k.PAUSED == 0))
            due = self.pool[self.block[waiting], rule, k.DUE_TICK]
            self.next_tick[rule] = due.min(initial=k.NEVER)
