"""The contract stage: readings in, accepted readings and rejects out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.attributes import Attributes
from operators.batch import ReadingBatch, Slice
from operators.contract.kernels import ACCEPTED, DUPLICATE, NEVER, RING, check_contract
from operators.contract.messages import breach_sentence
from operators.contract.sequence import TERMS, Follower
from operators.contract.spec import ProductContract
from operators.contract.tables import build_tables
from operators.devices import Devices
from operators.growing import grown
from operators.master import DeviceRow, is_retired
from operators.rejects import Reason, Reject
from operators.slots import ProductSlots
from operators.snapshot import Kept

_FRESH: dict[str, tuple[str, Any]] = {  # state array -> dtype, value of a device never heard
    "newest": ("i8", NEVER),
    "highest": ("i8", NEVER),
    "run_last": ("i8", 0),
    "run_count": ("u1", 0),
    "ring": ("u8", 0),
    "ring_next": ("u1", 0),
    "previous": ("f8", np.nan),
}


class _Product:
    """One product's tables and state. State arrays have one row a device of the product."""

    def __init__(self, spec: ProductContract) -> None:
        self.spec = spec
        self.tables = build_tables(spec)
        self.slots = ProductSlots()
        widths = {"ring": (RING,), "previous": (int(self.tables.step_column.max(initial=-1)) + 1,)}
        self.state: dict[str, npt.NDArray[Any]] = {
            name: np.empty((0, *widths.get(name, ())), dtype) for name, (dtype, _) in _FRESH.items()
        }
        self.follower = Follower(spec)
        self.retired: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.marked = 0  # rows for which `retired` has been asked

    def inherit(self, before: _Product) -> None:
        """Go on where a product with another contract, or other metrics, was: the timeline and the
        duplicates' memory of each device, steps of the metrics that are the same, the count of numbers
        where it is the same one."""
        self.slots = before.slots
        count = before.slots.count
        self.state = {
            name: array if name == "previous" else before.state[name] for name, array in self.state.items()
        }
        previous = np.full((len(before.state["newest"]), self.state["previous"].shape[1]), np.nan)
        for name, metric in self.spec.metrics.items():
            now, then = _step_column(self, name), _step_column(before, name)
            old = before.spec.metrics.get(name)
            if (
                now >= 0
                and then >= 0
                and old is not None
                and (old.type, old.unit) == (metric.type, metric.unit)
            ):
                previous[:, now] = before.state["previous"][:, then]
        self.state["previous"] = previous
        if before.spec.contract.sequence == self.spec.contract.sequence:
            self.follower.load(before.follower.export(count))

    def grow(self, devices: Devices) -> None:
        """Room for every device that has a row, and whether each is retired."""
        if len(self.state["newest"]) < self.slots.capacity:
            for name, (_, fresh) in _FRESH.items():
                self.state[name] = grown(self.state[name], self.slots.capacity, fresh)
        if len(self.retired) < self.slots.capacity:
            self.retired = np.zeros(self.slots.capacity, np.uint8)
            self.marked = 0
        if self.spec.retired:
            for row in range(self.marked, self.slots.count):
                self.retired[row] = devices.names[self.slots.slot_of[row]] in self.spec.retired
        self.marked = self.slots.count

    def forget_retired(self) -> None:
        """Ask again who is retired, at the next reading."""
        self.retired = np.zeros(0, np.uint8)


def _frame_of(item: Slice, position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which frame of the slice stands at a position of the journal."""
    if item.released:
        return np.searchsorted(item.frames.position, position)
    return position - int(item.frames.position[0])


def _step_column(product: _Product, name: str) -> int:
    """The column of `previous` in which a metric's steps stand; -1 where it has none."""
    names = list(product.spec.metrics)
    return int(product.tables.step_column[names.index(name)]) if name in names else -1


class ContractLogic(Kept):
    """Checks every reading against its product's contract (order and meaning: `kernels`).

    Accepted readings take the place of `Slice.readings`, with IN_ORDER, REBASED and HISTORICAL
    set; a refused one becomes one `Reject`. Counts readings_rejected and readings_filtered.
    """

    def __init__(self, specs: Mapping[str, ProductContract], devices: Devices) -> None:
        self.devices = devices
        self._products = {productId: _Product(spec) for productId, spec in specs.items()}

    def apply(self, specs: Mapping[str, ProductContract]) -> None:
        """A changed plant: the state of every product that stays is kept, as far as it means the same
        under the new contract."""
        products = {}
        for productId, spec in specs.items():
            kept = before = self._products.get(productId)
            if before is None or before.spec != spec or list(before.spec.metrics) != list(spec.metrics):
                kept = _Product(spec)
                if before is not None:
                    kept.inherit(before)
            assert kept is not None
            kept.spec = spec
            kept.forget_retired()
            products[productId] = kept
        self._products = products

    def refresh(self, rows: Sequence[DeviceRow], attributes: Attributes) -> bool:
        """Devices whose master data have changed: the row before and after. False: it takes an `apply`."""
        return not any(is_retired(row.before) != is_retired(row.after) for row in rows)

    def process(self, item: Slice) -> None:
        item.readings = [self._check(item, batch) if len(batch) else batch for batch in item.readings]

    def _check(self, item: Slice, batch: ReadingBatch) -> ReadingBatch:
        product = self._products[batch.productId]
        rows = product.slots.rows(batch.device)
        product.grow(self.devices)
        verdict = np.empty(len(batch), np.uint8)
        breach_metric = np.empty(len(batch), np.int32)
        breach = np.empty((2, len(batch)), np.float64)
        found = (verdict, breach_metric, breach)
        below: tuple[Any, ...] = (*product.tables, product.retired, *product.state.values(), *found)
        frames = item.frames
        frame = _frame_of(item, (batch.seq >> np.uint64(16)).astype(np.int64))
        payload = frames.payload if frames.payload.flags.writeable else frames.payload.copy()
        refused = check_contract(
            rows,
            batch.ts_ns,
            batch.ingest_ns,
            batch.seq,
            batch.flags,
            batch.value,
            payload,
            frames.offset[frame],
            frames.length[frame],
            batch.quality,
            *below,
        )
        missing = product.follower.run(
            product.slots,
            rows,
            batch.ts_ns,
            batch.ingest_ns,
            batch.flags,
            verdict,
            batch.value,
            batch.quality,
        )
        if missing is not None:
            self._count_missing(item, batch, missing)
        if not refused:
            return batch
        self._refuse(item, product, batch, verdict, breach_metric, breach)
        return batch.take(verdict == ACCEPTED)

    @staticmethod
    def _count_missing(item: Slice, batch: ReadingBatch, missing: npt.NDArray[np.int64]) -> None:
        """What never came, by source and product."""
        for source in np.unique(batch.source[missing.any(axis=1)]).tolist():
            sums = missing[batch.source == source].sum(axis=0).tolist()
            for term, count in zip(TERMS, sums, strict=True):
                item.count(item.sources[source], batch.productId, term, count)

    def missing(self, most: int) -> list[dict[str, Any]]:
        """Devices of whose numbers some never came, since their product's contract last changed:
        at most `most`, those that miss most first."""
        found = [
            {
                "productId": productId,
                "device_id": self.devices.names[product.slots.slot_of[row]],
                **dict(
                    zip(("missing", "gaps", "restarts"), product.follower.counts[row].tolist(), strict=True)
                ),
            }
            for productId, product in dict(self._products).items()
            for row in np.flatnonzero(product.follower.counts[: product.slots.count].any(axis=1)).tolist()
        ]
        found.sort(key=lambda one: (-int(one["missing"]), str(one["productId"]), str(one["device_id"])))
        return found[:most]

    def _refuse(
        self,
        item: Slice,
        product: _Product,
        batch: ReadingBatch,
        verdict: npt.NDArray[np.uint8],
        breach_metric: npt.NDArray[np.int32],
        breach: npt.NDArray[np.float64],
    ) -> None:
        frames = item.frames
        names = list(product.spec.metrics)
        filtered = verdict >= DUPLICATE
        rejected = (verdict != ACCEPTED) & ~filtered
        for term, rows in (("readings_filtered", filtered), ("readings_rejected", rejected)):
            for source, count in enumerate(np.bincount(batch.source[rows], minlength=0)):
                item.count(item.sources[source], batch.productId, term, int(count))
        for row in np.flatnonzero(rejected):
            seq = int(batch.seq[row])
            position = seq >> 16
            frame = int(_frame_of(item, np.array(position)))
            reason = Reason(int(verdict[row]))
            name = names[breach_metric[row]] if breach_metric[row] >= 0 else ""
            message = breach_sentence(
                product.spec,
                reason,
                product.spec.metrics.get(name),
                name,
                float(breach[0, row]),
                float(breach[1, row]),
                batch.texts,
                int(batch.ts_ns[row]),
                int(batch.ingest_ns[row]),
            )
            item.rejects.append(
                Reject(
                    reason,
                    frames.told(frame, message),
                    item.sources[batch.source[row]],
                    frames.addresses[frames.address[frame]].topic,
                    self.devices.names[batch.device[row]],
                    batch.productId,
                    position,
                    seq & 0xFFFF,
                    int(batch.ingest_ns[row]),
                    frames.frame(frame),
                )
            )

    def export(self) -> dict[str, Any]:
        return {
            productId: {
                "slots": product.slots.export(),
                "state": {name: array[: product.slots.count] for name, array in product.state.items()},
                "sequence": product.follower.export(product.slots.count),
            }
            for productId, product in self._products.items()
        }

    def load(self, state: dict[str, Any]) -> None:
        for productId, kept in state.items():
            product = self._products[productId]
            product.slots = ProductSlots.load(kept["slots"])
            for name, (_, fresh) in _FRESH.items():
                product.state[name] = grown(kept["state"][name], product.slots.capacity, fresh)
            product.follower.load(kept.get("sequence") or {})
            product.forget_retired()
