"""The `device-clock` system alarm: a device whose clock stepped or is wrong.

Nobody is woken for it (severity low, nothing to acknowledge), and readings of such a device are
stored all the same; but its times are not to be trusted, and while it lags its rules see nothing live.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from operators.batch import HISTORICAL, REBASED, ReadingBatch, Slice
from operators.growing import grown
from operators.slots import ProductSlots
from operators.spec import MILLISECOND
from rules import device_clock_kernels as k
from rules.alarm import AlarmRule, Evidence
from rules.context import Context
from rules.device_facts import DeviceFacts
from rules.message import parse_message
from rules.place import AT_ROW, Place, Transition

RULE_ID: Final = "device-clock"
EXPRESSION: Final = "clock stepped, or the median lag of 31 readings > live_within"
MESSAGE: Final = "{device_id}: its clock stepped or is wrong"
_EVENTS_AT_ONCE: Final = 256
_SUSPICIOUS: Final = np.uint8(HISTORICAL | REBASED)  # older than live_within, or its clock stepped
_STATE: Final[dict[str, tuple[tuple[int, ...], Any]]] = {
    "beyond": ((), np.int32),
    "first": ((2,), np.int64),
    "active": ((), np.uint8),
    "onset": ((), np.int64),
}


def device_clock_rule(rank: int) -> AlarmRule:
    """The alarm of every plant."""
    return AlarmRule(
        RULE_ID,
        "",
        hashlib.sha256(f"{RULE_ID}\x1f{EXPRESSION}\x1f{MESSAGE}".encode()).hexdigest()[:12],
        "low",
        parse_message(MESSAGE, metrics=(), params=(), attributes=(), owner="the plant"),
        EXPRESSION,
        required=False,
        rank=rank,
    )


class DeviceClock:
    """The evaluator of the system alarm (`rules.place.Evaluator`)."""

    def __init__(self, context: Context) -> None:
        spec, facts = context.spec, DeviceFacts(context)
        self.rule = device_clock_rule(len(context.alarms))
        self.own_rules: Sequence[AlarmRule] = (self.rule,)
        self.products = {
            name: _Product(name, product.live_within, self.rule, facts)
            for name, product in spec.products.items()
        }

    def run(self, item: Slice) -> list[Transition]:
        found: list[Transition] = []
        for batch in item.readings:
            if len(batch) and batch.productId in self.products:
                found += self.products[batch.productId].run(batch)
        return found

    def settle(self, item: Slice) -> None:
        pass

    def counters(self) -> Mapping[str, int]:
        return {}

    def export(self) -> dict[str, Any]:
        return {name: product.export() for name, product in self.products.items()}

    def load(self, kept: Mapping[str, Any]) -> None:
        for name, product in self.products.items():
            if name in kept:
                product.load(kept[name])


class _Product:
    def __init__(self, productId: str, live_within: int, rule: AlarmRule, facts: DeviceFacts) -> None:
        self.productId, self.live_within, self.rule, self.facts = productId, live_within, rule, facts
        self.slots = ProductSlots()
        self.state: dict[str, Any] = {
            name: np.zeros((0, *shape), kind) for name, (shape, kind) in _STATE.items()
        }
        self.events = np.zeros((_EVENTS_AT_ONCE, k.EVENT_COLUMNS), np.int64)
        self.watched = False

    def run(self, batch: ReadingBatch) -> list[Transition]:
        if not self.watched and not (batch.flags & _SUSPICIOUS).any():
            return []  # the kernel would change nothing
        local = self.slots.rows(batch.device)
        self._grow()
        found: list[Transition] = []
        resume = np.zeros(1, np.int64)
        while resume[0] < len(batch):
            rest: tuple[Any, ...] = (*self.state.values(), self.events, resume)
            count = k.watch_clocks(self.live_within, local, batch.ts_ns, batch.ingest_ns, batch.flags, *rest)
            found += [self._transition(line, batch) for line in self.events[:count].tolist()]
        self._look()
        return found

    def _look(self) -> None:
        """Whether any device has to be watched, whatever it sends."""
        self.watched = bool(self.state["beyond"].any() or self.state["active"].any())

    def _grow(self) -> None:
        for name in _STATE:
            self.state[name] = grown(self.state[name], self.slots.capacity, 0)

    def _transition(self, line: list[int], batch: ReadingBatch) -> Transition:
        kind, device, row, why, onset_ns = line
        slot = int(self.slots.slot_of[device])
        name = self.facts.devices.names[slot]
        lag = int(batch.ingest_ns[row] - batch.ts_ns[row])
        values = {
            "lag_ms": lag // MILLISECOND,
            "stepped": bool(why == k.STEPPED),
        }
        ingest = int(batch.ingest_ns[row])
        seq = int(batch.seq[row])
        return Transition(
            Place(seq, AT_ROW, 0, 0, slot, self.rule.rank),
            self.facts.subject(self.rule, name, self.productId, slot=slot, at_ns=int(batch.ts_ns[row])),
            kind,
            int(batch.ts_ns[row]),
            onset_ns,
            Evidence(EXPRESSION, values, "uncertain" if kind == k.RAISED else "good", seq >> 16, ingest),
            None,
        )

    def export(self) -> dict[str, Any]:
        count = self.slots.count
        return {
            "slots": self.slots.export().copy(),
            "state": {name: array[:count] for name, array in self.state.items()},
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        self.slots = ProductSlots.load(kept["slots"])
        self._grow()
        for name, array in kept["state"].items():
            self.state[name][: len(array)] = array
        self._look()
