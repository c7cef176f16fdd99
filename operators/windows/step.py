"""The windows stage: accepted readings in, closed and corrected windows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.attributes import Attributes
from operators.batch import LATE, ReadingBatch, Slice, Ticks, WindowBatch
from operators.devices import Devices
from operators.growing import grown, room
from operators.master import DeviceRow
from operators.slots import ProductSlots
from operators.snapshot import Kept
from operators.windows import kernels as k
from operators.windows.groups import Groups, in_order
from operators.windows.spec import DEVICE, ProductWindows, Window, every_ns, kept, window_metrics

_MANY = 1 << 14  # revisions of one batch
_GROUPS: Final = "\0groups"  # in a snapshot, beside products
COUNTED, REFUSED, NOT_ITS_OWN = 0, 1, 2  # what a window says of a reading
_FAR = 1 << 62  # a tick past everything that may still be open


class Windower:
    """One window of one product: its state, and the way from readings to `WindowBatch`."""

    def __init__(self, productId: str, window: Window, product: ProductWindows) -> None:
        self.productId = productId
        self.window = window
        names = list(product.metrics)
        chosen = window_metrics(window, product.metrics)
        self.chosen = [(name, product.metrics[name].type, product.metrics[name].unit) for name in chosen]
        self.identity = (window, names, self.chosen)  # while this stays, so does the state
        self.metric = np.array([names.index(name) for name in chosen], np.int32)
        self.times = np.array([every_ns(window.every), window.lateness, window.correct_within], np.int64)
        self.slots = ProductSlots()
        self.places, width = kept(window), len(chosen)
        places = self.places
        fields = k.ALL_FIELDS if "std" in window.aggregates else k.PLAIN_FIELDS
        self._quantiles = any(name in window.aggregates for name in ("p50", "p95", "p99"))
        sketches = width if self._quantiles else 0
        self.clock = np.empty((0, 4), np.int64)
        self.record = np.empty((0, places, 4), np.int64)
        self.runs = np.empty((0, k.RUNS, 2), np.uint32)
        self.part = np.empty((0, places, width, fields), np.float64)
        self.heads = np.empty((0, places, sketches), np.int32)
        self.keys = np.empty((0, k.CHUNK), np.int32)
        self.counts = np.empty((0, k.CHUNK), np.int32)
        self.following = np.empty(0, np.int32)
        self.scalars = np.zeros(k.SCALARS, np.int64)
        self.scalars[k.NEXT_DUE] = k.NEVER
        self.scalars[k.FREE] = -1
        self._room = -1  # revisions for which the buffers below have room

    def inherit(self, before: Windower) -> None:
        """Go on with the windows of a windower of the same product and length whose metrics,
        aggregates or times are others. A metric that is new counts from here on; `std` and quantiles
        that are new are unknown in windows that had readings before. What is final by the times before
        stays final."""
        self.slots, self.clock, self.runs = before.slots, before.clock, before.runs
        devices, there = before.record.shape[:2]
        places = max(there, self.places)
        self.record = np.zeros((devices, places, 4), np.int64)
        self.record[:, :there] = before.record
        self.record[:, there:, k.NUMBER] = k.EMPTY
        self.record[:, :there, k.NUMBER][before._make_final()] = k.EMPTY
        self.part = np.zeros((devices, places, *self.part.shape[2:]), np.float64)
        self.part[..., k.MIN], self.part[..., k.MAX] = np.inf, -np.inf
        self.part[..., k.LAST_AT] = -1.0
        self.heads = np.full((devices, places, self.heads.shape[2]), -1, np.int32)
        self.scalars[:] = before.scalars
        if self._quantiles and before._quantiles:
            self.keys, self.counts, self.following = before.keys, before.counts, before.following
        else:
            self.scalars[k.FREE], self.scalars[k.FREE_COUNT] = -1, 0
        fields = min(self.part.shape[3], before.part.shape[3])
        for column, metric in enumerate(self.chosen):
            if metric in before.chosen:
                then = before.chosen.index(metric)
                self.part[:, :there, column, :fields] = before.part[:, :, then, :fields]
                heard = before.part[:, :, then, k.COUNT] > 0
                if fields < self.part.shape[3]:
                    self.part[:, :there, column, fields:][heard] = np.nan
                if self._quantiles:
                    heads = before.heads[:, :, then] if before._quantiles else k.NO_SKETCH
                    self.heads[:, :there, column] = np.where(heard | before._quantiles, heads, -1)
        if self._quantiles and before._quantiles:
            for then, metric in enumerate(before.chosen):
                if metric not in self.chosen:
                    self._give_back(before.heads[:, :, then])
        if (self.clock[:, 2] != k.NEVER).any():
            self.scalars[k.NEXT_DUE] = 0  # the next tick looks at every device

    def _make_final(self) -> npt.NDArray[np.bool_]:
        """What the clocks have passed stays final, whatever the times will be. bool[C, K]: where a window
        stands that is."""
        length, lateness, correct_within = self.times.tolist()
        heard = self.clock[:, 0] != k.EMPTY
        final = np.where(heard, self.clock[:, 0], 0) - lateness - correct_within
        self.clock[heard, 3] = np.maximum(self.clock[:, 3], final)[heard]
        number = self.record[:, :, k.NUMBER]
        closed = (number != k.EMPTY) & (self.record[:, :, k.OPEN] == 0)
        ends: npt.NDArray[np.int64] = (np.where(closed, number, 0) + 1) * length
        found: npt.NDArray[np.bool_] = closed & heard[:, None] & (ends <= final[:, None])
        return found

    def came_out(self) -> dict[str, Any]:
        """What must be known of the windows when the plant has them no more: which came out."""
        return {"slots": self.slots.export(), "runs": self.runs[: self.slots.count]}

    def recall(self, state: dict[str, Any]) -> None:
        """What `came_out` gave, of windows that the plant has again: none of them comes out anew."""
        self.slots = ProductSlots.load(state["slots"])
        self._make_room(0)
        self.runs[: self.slots.count] = state["runs"]
        self.clock[:, 3] = self.runs[:, 0, 1] * self.times[0]

    def _give_back(self, heads: npt.NDArray[np.int32]) -> None:
        """The chunks of sketches that nobody reads any more are free."""
        for head in heads[heads >= 0].tolist():
            chunk = head
            while chunk >= 0:
                after = int(self.following[chunk])
                self.following[chunk] = self.scalars[k.FREE]
                self.scalars[k.FREE] = chunk
                self.scalars[k.FREE_COUNT] += 1
                chunk = after

    def end(self) -> WindowBatch | None:
        """What is still open, closed as it stands; no reading follows."""
        width = int(self.metric.max(initial=0)) + 1
        return self.fold(_only_a_tick(self.productId, width), np.empty(0, np.uint8))

    def fold(self, batch: ReadingBatch, refused: npt.NDArray[np.uint8]) -> WindowBatch | None:
        """Fold the rows and ticks of a batch; `refused[i]` becomes 1 where row i is too late."""
        rows = self.slots.rows(batch.device)
        self._make_room(len(rows))
        self.scalars[k.EMITTED] = 0
        done = self._fold(-1, rows, batch, refused)
        while done < len(rows):
            self._widen()
            done = self._fold(done, rows, batch, refused)
        emitted = int(self.scalars[k.EMITTED])
        closed = self._batch(emitted) if emitted else None
        if emitted > _MANY:
            self._give_buffers(0)  # every device's window closed at once: give the memory back
            self._room = -1
        return closed

    def _fold(
        self, first: int, rows: npt.NDArray[np.int32], batch: ReadingBatch, refused: npt.NDArray[np.uint8]
    ) -> int:
        return k.fold_windows(
            first,
            self.record.shape[1] < 2 * self.places,
            rows,
            batch.ts_ns,
            batch.ingest_ns,
            batch.seq,
            batch.flags,
            batch.value,
            batch.quality,
            batch.ticks.row,
            batch.ticks.ns,
            self.metric,
            self.times,
            self.clock,
            self.record,
            self.runs,
            self.part,
            self.heads,
            self.keys,
            self.counts,
            self.following,
            self.scalars,
            refused,
            self._out,
            self._out_part,
            self._out_quantile,
        )

    def _widen(self) -> None:
        """More places for each device: of the windows of a time before a clock was re-based."""
        devices, places = self.record.shape[:2]
        wanted = min(2 * places, 2 * self.places)
        record = np.zeros((devices, wanted, 4), np.int64)
        record[:, :places] = self.record
        record[:, places:, k.NUMBER] = k.EMPTY
        part = np.zeros((devices, wanted, *self.part.shape[2:]), np.float64)
        part[:, :places] = self.part
        heads = np.full((devices, wanted, self.heads.shape[2]), -1, np.int32)
        heads[:, :places] = self.heads
        self.record, self.part, self.heads = record, part, heads

    def _make_room(self, rows: int) -> None:
        """State for every device, chunks for every value, buffers for every revision."""
        capacity = self.slots.capacity
        if len(self.clock) < capacity:
            known = len(self.clock)
            self.clock = grown(self.clock, capacity, 0)
            self.clock[known:] = (k.EMPTY, 0, k.NEVER, 0)
            self.record = grown(self.record, capacity, 0)
            self.record[known:, :, k.NUMBER] = k.EMPTY
            self.runs = grown(self.runs, capacity, 0)
            self.part = grown(self.part, capacity, 0.0)
            self.heads = grown(self.heads, capacity, -1)
        self.scalars[k.DEVICES] = self.slots.count
        wanted = rows * self.heads.shape[2]
        if self.scalars[k.FREE_COUNT] < wanted:
            known = len(self.following)
            stop = known + max(known, wanted - int(self.scalars[k.FREE_COUNT]))
            self.keys = grown(self.keys, stop, 0)
            self.counts = grown(self.counts, stop, 0)
            self.following = grown(self.following, stop, -1)
            self.following[known:stop] = np.arange(known + 1, stop + 1)
            self.following[stop - 1] = self.scalars[k.FREE]
            self.scalars[k.FREE] = known
            self.scalars[k.FREE_COUNT] += stop - known
        revisions = int(self.scalars[k.OPEN_COUNT]) + 2 * rows
        if self._room < revisions:
            self._room = revisions + revisions // 4
            self._give_buffers(self._room)

    def _give_buffers(self, revisions: int) -> None:
        """Buffers for so many revisions, which take memory only as they are written to: nearly all of what
        may close in a batch stays open."""
        self._out = room((revisions, 4), np.int64)
        self._out_part = room((revisions, *self.part.shape[2:]), np.float64)
        self._out_quantile = room((revisions, self.heads.shape[2], 3), np.float64)

    def _batch(self, emitted: int) -> WindowBatch:
        """The first `emitted` revisions of the buffers, one row a metric."""
        width = len(self.metric)
        out = np.repeat(self._out[:emitted], width, axis=0)
        part = self._out_part[:emitted].reshape(emitted * width, -1).T.copy()
        count = part[k.COUNT]
        nothing = count == 0
        asked = self.window.aggregates
        columns: dict[str, npt.NDArray[np.float64]] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in asked:
                if name in ("min", "max", "last"):
                    columns[name] = part[{"min": k.MIN, "max": k.MAX, "last": k.LAST}[name]]
                elif name == "mean":
                    columns[name] = part[k.SUM] / count
                elif name == "std":
                    columns[name] = np.sqrt(part[k.M2] / count)
                elif name != "count":
                    at = ("p50", "p95", "p99").index(name)
                    columns[name] = self._out_quantile[:emitted, :, at].reshape(-1).copy()
        for column in columns.values():
            column[nothing] = np.nan
        start = out[:, 1] * self.times[0]
        good = count.astype(np.int64)
        return WindowBatch(
            self.productId,
            self.window.every,
            self.slots.slot_of[out[:, 0]],
            np.tile(self.metric, emitted),
            start,
            start + self.times[0],
            good,
            good.copy(),
            part[k.BAD].astype(np.int64),
            out[:, 2].copy(),
            columns,
            out[:, 3].copy(),
        )

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        count = self.slots.count
        return {
            "slots": self.slots.export(),
            "clock": self.clock[:count],
            "record": self.record[:count],
            "runs": self.runs[:count],
            "part": self.part[:count],
            "heads": self.heads[:count],
            "keys": self.keys,
            "counts": self.counts,
            "following": self.following,
            "scalars": self.scalars,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of what `export` gave."""
        self.slots = ProductSlots.load(state["slots"])
        for name in ("clock", "record", "part", "heads", "keys", "counts", "following", "scalars"):
            setattr(self, name, state[name])
        if "runs" in state:
            self.runs = state["runs"]
        else:
            self._come_out_at_most()
        self._make_room(0)

    def _come_out_at_most(self) -> None:
        """State of a version that did not keep what came out: all that its clocks had made final may have,
        and of the rest what stands closed has."""
        length, lateness, correct_within = self.times.tolist()
        passed = (self.clock[:, 0] - lateness - correct_within) // length
        passed[self.clock[:, 0] == k.EMPTY] = 0
        self.runs = np.zeros((len(self.clock), k.RUNS, 2), np.uint32)
        self.runs[:, 0, 1] = np.clip(passed, 0, k.LAST_NOTED)
        self.clock = np.column_stack((self.clock, np.zeros(len(self.clock), np.int64)))
        for row, place in np.argwhere(self.record[:, :, k.REVISION] > 0).tolist():
            k.note(row, int(self.record[row, place, k.NUMBER]), self.runs)


class GroupWindower(Windower):
    """One window of one product over groups of devices (meaning: `groups`)."""

    def __init__(self, productId: str, window: Window, product: ProductWindows, groups: Groups) -> None:
        super().__init__(productId, window, product)
        self.groups = groups

    def fold(self, batch: ReadingBatch, refused: npt.NDArray[np.uint8]) -> WindowBatch | None:
        """The same; `refused[i]` becomes NOT_ITS_OWN where row i is of no group."""
        group = self.groups.of(batch)
        own = group >= 0
        if not own.all():
            refused[:] = NOT_ITS_OWN
            batch, group = batch.take(own), group[own]
        rows = self.slots.rows(group)
        self._make_room(0)
        batch = in_order(replace(batch, device=group), rows, self.clock[: self.slots.count, 0].copy())
        told = np.empty(len(batch), np.uint8)
        closed = super().fold(batch, told)
        refused[own] = told
        if closed is not None:
            closed.by, closed.groups = self.window.over, self.groups.names
        return closed


class WindowsLogic(Kept):
    """Folds accepted readings into every window of their product (meaning: `kernels`).

    Adds closed and corrected windows to `Slice.windows`, sets LATE on readings that every window
    that they belong to refuses, and counts readings_accepted and readings_late.
    """

    def __init__(self, specs: Mapping[str, ProductWindows], devices: Devices) -> None:
        self.devices = devices
        self._groups: dict[str, dict[str, list[str]]] = {}  # productId -> window -> names of its groups
        self._specs = specs
        self._windowers = self._build(specs)
        self._ended: list[WindowBatch] = []  # of windows that a changed plant has no more
        self._gone: dict[str, dict[str, dict[str, Any]]] = {}  # productId -> every -> which of them came out

    def apply(self, specs: Mapping[str, ProductWindows]) -> None:
        """A changed plant: windows of a length that stays go on. Of the others what is open comes out
        as it stands, in the slice of the plant, by the metrics of the plant before, and none comes out
        anew should a later plant have them again."""
        before = self._windowers
        self._specs = specs
        self._windowers = self._build(specs)
        for productId, windowers in self._windowers.items():
            for name, windower in windowers.items():
                known = before.get(productId, {}).get(name)
                if known is not None and known.identity == windower.identity:
                    windowers[name] = known
                    if isinstance(known, GroupWindower) and isinstance(windower, GroupWindower):
                        known.groups = windower.groups
                elif known is not None:
                    windower.inherit(known)
                elif name in self._gone.get(productId, {}):
                    windower.recall(self._gone[productId].pop(name))
        for productId, windowers in before.items():
            for name, windower in windowers.items():
                if name in self._windowers.get(productId, {}):
                    continue
                ended = windower.end()
                if ended is not None:
                    self._ended.append(ended)
                self._gone.setdefault(productId, {})[name] = windower.came_out()

    def refresh(self, rows: Sequence[DeviceRow], attributes: Attributes) -> bool:
        """Devices whose master data have changed, as far as they are in groups."""
        changed = [row.device for row in rows]
        for windowers in self._windowers.values():
            for windower in windowers.values():
                if isinstance(windower, GroupWindower):
                    windower.groups.use(attributes, changed)
        return True

    def _build(self, specs: Mapping[str, ProductWindows]) -> dict[str, dict[str, Windower]]:
        return {
            productId: {window.key: self._windower(productId, window, product) for window in product.windows}
            for productId, product in specs.items()
        }

    def _windower(self, productId: str, window: Window, product: ProductWindows) -> Windower:
        if window.over == DEVICE:
            return Windower(productId, window, product)
        names = self._groups.setdefault(productId, {}).setdefault(window.key, [])
        joined = product.joined or Attributes({})
        groups = Groups(window.over, productId, self.devices, joined, names)
        return GroupWindower(productId, window, product, groups)

    def process(self, item: Slice) -> None:
        item.windows.extend(self._ended)
        self._ended = []
        for batch in item.readings:
            refused = np.empty(len(batch), np.uint8)
            late: npt.NDArray[np.bool_] | None = None
            for windower in self._windowers[batch.productId].values():
                closed = windower.fold(batch, refused)
                if closed is not None:
                    item.windows.append(closed)
                told = refused == REFUSED
                if late is None:
                    late, counted = told, refused == COUNTED
                else:
                    late, counted = late | told, counted | (refused == COUNTED)
            _count(item, batch, None if late is None else late & ~counted)

    def close_all(self) -> list[WindowBatch]:
        """Close what is still open, as a tick past every window would."""
        found = []
        for windowers in self._windowers.values():
            for windower in windowers.values():
                closed = windower.end()
                if closed is not None:
                    found.append(closed)
        return found

    def export(self) -> dict[str, Any]:
        windows: dict[str, Any] = {
            productId: {
                **{name: windower.export() for name, windower in self._windowers.get(productId, {}).items()},
                **self._gone.get(productId, {}),
            }
            for productId in {**self._windowers, **self._gone}
        }
        return windows if not self._groups else {**windows, _GROUPS: self._groups}

    def load(self, state: dict[str, Any]) -> None:
        for productId, named in state.pop(_GROUPS, {}).items():
            for name, names in named.items():
                self._groups.setdefault(productId, {})[name] = names
        self._windowers = self._build(self._specs)
        for productId, windowers in state.items():
            for name, found in windowers.items():
                windower = self._windowers.get(productId, {}).get(name)
                if windower is not None:
                    windower.load(found)
                else:
                    self._gone.setdefault(productId, {})[name] = found


def _count(item: Slice, batch: ReadingBatch, late: npt.NDArray[np.bool_] | None) -> None:
    """Flags and ledger terms of the readings of one batch."""
    if late is not None and late.any():
        batch.flags[late] |= LATE
        for source, n in enumerate(np.bincount(batch.source[late])):
            item.count(item.sources[source], batch.productId, "readings_late", int(n))
        accepted = batch.source[~late]
    else:
        accepted = batch.source
    for source, n in enumerate(np.bincount(accepted)):
        item.count(item.sources[source], batch.productId, "readings_accepted", int(n))


def _only_a_tick(productId: str, metrics: int) -> ReadingBatch:
    return ReadingBatch(
        productId,
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        np.empty((metrics, 0), np.float64),
        np.empty((metrics, 0), np.uint8),
        np.empty(0, np.uint64),
        np.empty(0, np.int64),
        np.empty(0, np.uint8),
        np.empty(0, np.int32),
        {},
        Ticks(np.zeros(1, np.int64), np.array([_FAR], np.int64)),
    )
