"""What the conditions of one product's rules did in a slice, as columns, and one by one.

Plain transitions become events a batch at a time (`rules.plain_events`); the others, and who wants to
see them, take them as `rules.place.Transition`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from operators.batch import ABSENT, BAD, QUALITY_NAMES, SEQ_PER_FRAME, Bytes, Float64, Int64
from operators.spec import SECOND
from rules import kernels as k
from rules.alarm import Evidence
from rules.message import Value
from rules.place import Place, Transition

if TYPE_CHECKING:
    from rules.product import ProductRules


class Transitions:
    """E transitions of one product, in the order of their places.

    kind, number, device: int64[E], RAISED or CLEARED, part and device within the product; time_ns,
    onset_ns: int64[E]. places: int64[6, E], the fields of `rules.place.Place`. Of the reading that each
    rests on: values: float64[E, J] and qualities: uint8[E, J] of the metrics that the rules use,
    position, ingest_ns: int64[E].
    """

    def __init__(
        self, product: ProductRules, lines: Int64, rows: Int64, columns: Float64, *, lacking: bool
    ) -> None:
        """lines: int64[E, EVENT_COLUMNS] of `kernels.walk`; rows: of the batch, that they rest on, -1: on the
        device's last reading before it. columns: of the program; lacking: the batch lacks values."""
        self.product = product
        order, places = _places(product, lines)
        self.places = places[:, order]
        lines, rows = lines[order], rows[order]
        self.kind, self.number = lines[:, k.EVENT_KIND], lines[:, k.EVENT_RULE]
        self.device = lines[:, k.EVENT_DEVICE]
        self.time_ns, self.onset_ns = lines[:, k.EVENT_TIME], lines[:, k.EVENT_ONSET]
        batch, used = product.batch, product.used
        if len(batch):
            values = columns[used[:, None], rows].T
            found = (
                product.quality[:, rows] & np.uint8(0x7F) if lacking else batch.quality[used[:, None], rows]
            )
            self.values: Float64 = np.ascontiguousarray(values)
            self.qualities: Bytes = np.ascontiguousarray(found.T)
            self.position: Int64 = product.places.seq[rows] // SEQ_PER_FRAME
            self.ingest_ns: Int64 = batch.ingest_ns[rows]
        else:
            self.values = np.empty((len(rows), len(used)))
            self.qualities = np.empty((len(rows), len(used)), np.uint8)
            self.position, self.ingest_ns = np.empty((2, len(rows)), np.int64)
        before = np.flatnonzero(rows < 0)
        if len(before):
            self._rest_before(before)

    def _rest_before(self, events: Int64) -> None:
        """What the devices' last readings before the batch left."""
        product, state = self.product, self.product.state
        devices = self.device[events]
        at = state["met"][devices]
        held = at < 0
        last = np.where(held[:, None], state["last"][devices], product.before[at])
        values = np.where(held[:, None], state["held_value"][devices], product.before_value[at])
        qualities = np.where(held[:, None], state["held_quality"][devices], product.before_quality[at])
        if product.product.stale_after:  # a `before` row has been looked at already
            age = last[:, :1] - state["held_ns"][devices]
            stale = held[:, None] & (qualities < BAD) & (age > product.product.stale_after)
            values[stale], qualities[stale] = math.nan, ABSENT
        self.values[events], self.qualities[events] = values, qualities
        self.ingest_ns[events], self.position[events] = last[:, 1], last[:, 2]

    def __len__(self) -> int:
        return len(self.kind)

    def __iter__(self) -> Iterator[Transition]:
        return map(self.one, range(len(self)))

    def one(self, at: int) -> Transition:
        """One of them by itself."""
        product = self.product
        number, device, time_ns = int(self.number[at]), int(self.device[at]), int(self.time_ns[at])
        alarm = product.parts[number].alarm
        values, quality = self.shown(at)
        evidence = Evidence(
            alarm.expression, values, quality, int(self.position[at]), int(self.ingest_ns[at])
        )
        return Transition(
            Place(*self.places[:, at].tolist()),
            product.subject(number, device, time_ns),
            int(self.kind[at]),
            time_ns,
            int(self.onset_ns[at]),
            evidence,
            self.lookup(at) if alarm.varies else None,
        )

    def shown(self, at: int) -> tuple[dict[str, Any], str]:
        """The metrics of the alarm's condition with their values, and the worst quality of them."""
        values, worst = {}, 0
        line, qualities = self.values[at].tolist(), self.qualities[at].tolist()
        for name, j in self.product.evidence_of[int(self.number[at])]:
            values[name] = self.product.plain(j, line[j])
            worst = max(worst, qualities[j])
        return values, QUALITY_NAMES[worst]

    def lookup(self, at: int) -> Callable[[str, str], Value]:
        """What names of a message stand for at the event time."""
        product, values, at_ns = self.product, self.values[at], int(self.time_ns[at])
        slot = product.slots[int(self.device[at])]

        def named(root: str, name: str) -> Value:
            if root == "metrics":
                metric = product.metrics.index(name)
                return product.plain(metric, float(values[metric]))
            if root == "param":
                return product.param(name, slot, at_ns)
            return product.attribute(name, slot, at_ns)

        return named


def _places(product: ProductRules, lines: Int64) -> tuple[Int64, Int64]:
    """The order of the places of lines, and their fields: int64[6, E]."""
    by, time_ns = lines[:, k.EVENT_BY], lines[:, k.EVENT_TIME]
    ticked = by == k.BY_TICK
    places = np.zeros((6, len(lines)), np.int64)
    places[0, ticked] = product.places.tick[lines[ticked, k.EVENT_TICK_AT]]
    places[0, ~ticked] = product.places.seq[lines[~ticked, k.EVENT_ROW]]
    places[1] = by
    places[2, ticked] = -(-lines[ticked, k.EVENT_TICK] // SECOND)
    places[3] = np.where(by == k.AT_ROW, 0, time_ns)
    places[4] = [product.slots[device] for device in lines[:, k.EVENT_DEVICE].tolist()]
    places[5] = product.ranks[lines[:, k.EVENT_RULE]]
    return np.lexsort(places[::-1]), places


def one_by_one(found: Sequence[Transitions]) -> list[Transition]:
    """All of them."""
    return [one for transitions in found for one in transitions]
