"""The state stage: the newest values of every device, its last windows and active alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.attributes import Attributes
from operators.batch import (
    ABSENT,
    IN_ORDER,
    QUALITY_NAMES,
    AlarmBrief,
    AlarmEvent,
    Float64,
    Int32,
    Int64,
    ReadingBatch,
    Slice,
    StateChanges,
    WindowBatch,
)
from operators.contract.messages import time_text
from operators.devices import Devices
from operators.expression.formula_spec import READING
from operators.growing import grown
from operators.master import DeviceRow
from operators.parameters import Parameters
from operators.slots import ProductSlots
from operators.snapshot import Kept
from operators.state.formulas import ReadingFormulas, WindowFormulas, meaning
from operators.state.kernels import keep_latest, keep_window
from operators.state.references import FLAGS, FormulaColumn, WindowRef, flag_bits, references
from operators.state.spec import ProductState
from operators.state.store import (
    ALSO,
    FORMER,
    NO_ALARMS,
    NO_WINDOW,
    OWN,
    DeviceState,
    Layout,
    MetricState,
    WindowState,
    cut_records,
    device_key,
    metrics_by_name,
    product_key,
    record_tail,
    typed_value,
)
from operators.windows.spec import DEVICE

_FRESH: dict[str, tuple[str, Any]] = {  # state array -> dtype, value of a device never heard
    "latest": ("f8", np.nan),
    "quality": ("u1", ABSENT),
    "time": ("i8", 0),
    "position": ("i8", 0),
    "kept": ("f8", np.nan),
    "kept_start": ("i8", NO_WINDOW),
    "kept_revision": ("i8", 0),
    "touched": ("u1", 0),
    "standing": ("u1", OWN),
}
_NO_ROW: Mapping[str, str] = {}
_ACTIVE, _ACKNOWLEDGED = 1 << FLAGS.index("active"), 1 << FLAGS.index("acknowledged")
_RECORDS_AT_ONCE = 4096
_TEXTS_AT_EASE = 4096  # texts kept before those that no device shows any more are dropped


class _Product:
    """The state of one product's devices; the arrays have one row a device."""

    def __init__(self, productId: str, spec: ProductState) -> None:
        self.productId = productId
        self.names = list(spec.metrics)
        self.kinds = [metric.type for metric in spec.metrics.values()]
        formulas = spec.formulas
        self.reading = ReadingFormulas(productId, self.names, formulas) if formulas is not None else None
        over = dict.fromkeys(one.over for one in formulas.formulas if one.over != READING) if formulas else ()
        self.over = [WindowFormulas(productId, window, formulas) for window in over if formulas]
        shown = [found for found in references(spec.aas) if isinstance(found, WindowRef)]
        asked = [one for formulas_ in self.over for one in formulas_.asked]
        made = [FormulaColumn(one.formulaId, one.over) for one in (formulas.formulas if formulas else ())]
        self.aggregates: list[WindowRef | FormulaColumn] = list(dict.fromkeys((*shown, *asked, *made)))
        self.identity = (self.names, self.kinds, self.aggregates, meaning(formulas))
        self.layout = Layout(
            productId,
            tuple(zip(self.names, self.kinds, strict=True)),
            tuple(one.shown for one in self.aggregates),
        )
        self.layout_id = self.layout.id()
        self.key = product_key(productId)
        self.judged = 0  # so many rows have a standing
        self.has_former = False
        self.texts: dict[int, str] = {}
        self.slots = ProductSlots()
        kept = (len(self.aggregates),)
        widths = {"touched": (), "standing": (), "kept": kept, "kept_start": kept, "kept_revision": kept}
        self.state: dict[str, npt.NDArray[Any]] = {
            name: np.empty((0, *widths.get(name, (len(self.names),))), dtype)
            for name, (dtype, _) in _FRESH.items()
        }

    def inherit(self, before: _Product) -> None:
        """Go on with the values of metrics that keep their name and type, and the windows that both
        mappings refer to."""
        self.slots, self.texts = before.slots, before.texts
        capacity = len(before.state["touched"])
        self.state = {name: grown(self.state[name], capacity, fresh) for name, (_, fresh) in _FRESH.items()}
        for m, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            if name in before.names and before.kinds[before.names.index(name)] == kind:
                for array in ("latest", "quality", "time", "position"):
                    self.state[array][:, m] = before.state[array][:, before.names.index(name)]
        for column, reference in enumerate(self.aggregates):
            if reference in before.aggregates:
                for array in ("kept", "kept_start", "kept_revision"):
                    then = before.aggregates.index(reference)
                    self.state[array][:, column] = before.state[array][:, then]
        if self.reading is not None and before.reading is not None:
            self.reading.load(before.reading.export(self.slots.count), self.slots.capacity, self.slots.count)
        self.state["standing"] = before.state["standing"]
        self.judged, self.has_former = before.judged, before.has_former
        self.state["touched"][: self.slots.count] = 1  # records of another layout

    def rows(self, device: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        rows = self.slots.rows(device)
        if len(self.state["touched"]) < self.slots.capacity:
            for name, (_, fresh) in _FRESH.items():
                self.state[name] = grown(self.state[name], self.slots.capacity, fresh)
        return rows

    def read(self, batch: ReadingBatch, devices: Devices, parameters: Parameters) -> None:
        """Take the readings in."""
        rows = self.rows(batch.device)
        state = self.state
        if self.has_former:
            heard = rows[(batch.flags & np.uint8(IN_ORDER)) != 0]
            state["standing"][heard[state["standing"][heard] == FORMER]] = ALSO
            self.has_former = bool((state["standing"][: self.slots.count] == FORMER).any())
        keep_latest(
            rows,
            batch.ts_ns,
            batch.seq,
            batch.flags,
            batch.value,
            batch.quality,
            state["latest"],
            state["quality"],
            state["time"],
            state["position"],
            state["touched"],
        )
        if self.reading is not None:
            found = self.reading.run(rows, batch, self.slots.slot_of, self.slots.count, devices, parameters)
            if found is not None:
                who, values, times, positions = found
                names = [FormulaColumn(one.formulaId, one.over) for one in self.reading.formulas]
                self._keep(names, who, values, times, positions)
        if batch.texts:
            self.texts.update(batch.texts)
            if len(self.texts) > max(_TEXTS_AT_EASE, 2 * state["latest"].size):
                self.drop_texts()

    def stands(self, row: int, standing: int) -> None:
        """What the product is to a device from now on."""
        if self.state["standing"][row] != standing:
            self.state["standing"][row] = standing
            self.state["touched"][row] = 1
        self.has_former = self.has_former or standing == FORMER

    def texts_of(self, rows: npt.NDArray[np.int64]) -> dict[int, str]:
        """The texts that some devices show, by code."""
        kinds = np.array([kind == "string" for kind in self.kinds], np.bool_)
        codes = np.unique(self.state["latest"][rows][:, kinds])
        shown = codes[~np.isnan(codes)].astype(np.int64).tolist()
        return {code: self.texts[code] for code in shown if code in self.texts}

    def drop_texts(self) -> None:
        """Forget the texts that no device shows."""
        shown = set()
        for m, kind in enumerate(self.kinds):
            if kind == "string":
                column: Float64 = self.state["latest"][: self.slots.count, m]
                shown.update(column[column == column].astype(np.int64).tolist())
        self.texts = {code: text for code, text in self.texts.items() if code in shown}

    def _keep(
        self, names: Sequence[FormulaColumn], rows: Int32, values: Float64, start: Int64, number: Int64
    ) -> None:
        """Keep the values float64[R, F] of formulas at some rows."""
        for at, name in enumerate(names):
            column = self.aggregates.index(name)
            self.state["kept"][rows, column] = values[:, at]
            self.state["kept_start"][rows, column] = start
            self.state["kept_revision"][rows, column] = number

    def refresh(self, slot: int, devices: Devices, parameters: Parameters) -> None:
        """A parameter of a device has changed: its next reading, and its next window, see it."""
        row = self.slots.row(slot)
        if row >= 0:
            formulas: list[ReadingFormulas | WindowFormulas] = [*self.over]
            if self.reading is not None:
                formulas.append(self.reading)
            for one in formulas:
                one.inputs.rows(self.slots.slot_of, self.slots.count, devices, parameters)
                one.inputs.refresh(row, slot, devices, parameters)

    def close(self, batch: WindowBatch, devices: Devices, parameters: Parameters) -> None:
        """Take closed windows in, as far as the mapping refers to them."""
        self._close(batch)
        for one in self.over:
            if one.over == batch.window:
                rows = np.unique(self.rows(batch.device))
                columns = np.array([self.aggregates.index(asked) for asked in one.asked], np.int64)
                kept, start, revision = (
                    self.state[name][np.ix_(rows, columns)]
                    for name in ("kept", "kept_start", "kept_revision")
                )
                inputs = one.inputs.rows(self.slots.slot_of, self.slots.count, devices, parameters)[rows]
                names = [FormulaColumn(formula.formulaId, formula.over) for formula in one.formulas]
                self._keep(names, rows, *one.run(kept, start, revision, inputs))

    def _close(self, batch: WindowBatch) -> None:
        for column, reference in enumerate(self.aggregates):
            if isinstance(reference, FormulaColumn) or reference.window != batch.window:
                continue
            values = batch.aggregates.get(reference.aggregate)
            if values is None:
                values = batch.count.astype(np.float64)
            keep_window(
                self.rows(batch.device),
                batch.metric,
                self.names.index(reference.metric),
                batch.start_ns,
                batch.revision,
                values,
                column,
                self.state["kept"],
                self.state["kept_start"],
                self.state["kept_revision"],
                self.state["touched"],
            )

    def metrics_of(self, row: int) -> dict[str, MetricState]:
        """The metrics that a device has ever reported."""
        state = self.state
        quality = state["quality"][row].tolist()
        latest, time, position = (state[name][row].tolist() for name in ("latest", "time", "position"))
        return {
            name: MetricState(
                typed_value(self.kinds[m], latest[m], self.texts), quality[m], time[m], position[m]
            )
            for m, name in enumerate(self.names)
            if quality[m] != ABSENT
        }

    def windows_of(self, row: int) -> dict[str, dict[str, dict[str, WindowState]]]:
        """The aggregates that the mapping refers to, of a device's last windows."""
        found: dict[str, dict[str, dict[str, WindowState]]] = {}
        for column, (window, aggregate, metric) in enumerate(one.shown for one in self.aggregates):
            start = int(self.state["kept_start"][row, column])
            if start != NO_WINDOW:
                value = float(self.state["kept"][row, column])
                revision = int(self.state["kept_revision"][row, column])
                found.setdefault(window, {}).setdefault(metric, {})[aggregate] = WindowState(
                    value if value == value else None, start, revision
                )
        return found


class _Records:
    """The records of changed devices, a few thousand at a time."""

    def __init__(self, logic: StateLogic, changed: Sequence[tuple[_Product, Int64]]) -> None:
        self._logic, self._changed = logic, changed

    def __iter__(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        for product, rows in self._changed:
            for first in range(0, len(rows), _RECORDS_AT_ONCE):
                yield from self._logic.records(product, rows[first : first + _RECORDS_AT_ONCE])


class StateLogic(Kept):
    """Keeps per device and metric the newest value, and what the product's `aas:` refers to.

    The last accepted in-order reading that carries a metric wins; an out-of-order one never
    overwrites a newer. Nothing is added to the slice.
    """

    def __init__(self, specs: Mapping[str, ProductState], devices: Devices) -> None:
        self.devices = devices
        self._products = {productId: _Product(productId, spec) for productId, spec in specs.items()}
        self._asks_master = any(spec.formulas is not None for spec in specs.values())
        self._rows = _master(specs)
        self._changed: dict[str, str] = {}  # products of devices whose rows are others since
        self._open: dict[str, dict[str, tuple[str, int]]] = {}  # device_id -> subject -> ruleId, flags
        self._heard_as = np.zeros(0, np.uint8)  # by slot: as how many products, of up to 255
        self._parameters = Parameters()

    def apply(self, specs: Mapping[str, ProductState]) -> None:
        """A changed plant: products keep the values of all that means the same."""
        before = self._products
        self._asks_master = any(spec.formulas is not None for spec in specs.values())
        self._products = {productId: _Product(productId, spec) for productId, spec in specs.items()}
        for productId, product in self._products.items():
            known = before.get(productId)
            if known is not None and known.identity == product.identity and product.reading is None:
                self._products[productId] = known
            elif known is not None:
                product.inherit(known)
        rows, self._rows = self._rows, _master(specs)
        changed, self._changed = self._changed, {}
        for device, row in self._rows.items():
            then = changed.get(device)
            then = rows.get(device, _NO_ROW).get("productId", "") if then is None else then
            if (now := row.get("productId", "")) != then:
                self._move(device, then, now)

    def refresh(self, rows: Sequence[DeviceRow], attributes: Attributes) -> bool:
        """Devices whose master data have changed. False: it takes an `apply`."""
        for one in rows:
            then = self._product_of(one.device)
            if (now := one.after.get("productId", "")) != then:
                self._changed[one.device] = now
                self._move(one.device, then, now)
        return not self._asks_master

    def _product_of(self, device: str) -> str:
        """The product that master data give a device at this place; "" where they give none."""
        found = self._changed.get(device)
        return self._rows.get(device, _NO_ROW).get("productId", "") if found is None else found

    def _move(self, device: str, then: str, now: str) -> None:
        """Master data give a device another product than they did."""
        slot = self.devices.slots.get(device)
        if slot is None:
            return
        own = now or self.devices.products[slot]
        for product in self._products.values():
            row = product.slots.row(slot)
            if row < 0:
                continue
            if product.productId == own:
                product.stands(row, OWN)
            elif product.productId == then:
                product.stands(row, FORMER)
            elif product.state["standing"][row] == OWN:
                product.stands(row, ALSO)

    def _judge(self, product: _Product) -> None:
        """Give devices that the product has first heard now their standing."""
        for row in range(product.judged, product.slots.count):
            slot = int(product.slots.slot_of[row])
            own = self._product_of(self.devices.names[slot]) or self.devices.products[slot]
            product.state["standing"][row] = OWN if own == product.productId else ALSO
        self._count_heard(product.slots.slot_of[product.judged : product.slots.count])
        product.judged = product.slots.count

    def _count_heard(self, slots: Int32) -> None:
        """A product has heard of devices for the first time."""
        self._heard_as = grown(self._heard_as, len(self.devices), 0)
        self._heard_as[slots] += self._heard_as[slots] < 255

    def process(self, item: Slice) -> None:
        device = self._parameters.take(item)
        slot = self.devices.slots.get(device) if device is not None else None
        if slot is not None:
            for product in self._products.values():
                product.refresh(slot, self.devices, self._parameters)
        for batch in item.readings:
            if len(batch):
                product = self._products[batch.productId]
                product.read(batch, self.devices, self._parameters)
                if product.judged < product.slots.count:
                    self._judge(product)
        ended = item.control is not None  # windows that the plant has no more: nothing refers to them
        for closed in () if ended else item.windows:
            if closed.by != DEVICE:
                continue  # a group has no newest values
            self._products[closed.productId].close(closed, self.devices, self._parameters)
        for alarm in item.alarms:
            self._alarm(alarm)

    def _alarm(self, alarm: AlarmEvent) -> None:
        brief = alarm.brief or _brief(alarm.event)
        slot = self.devices.slots.get(brief.device_id) if brief.device_id is not None else None
        if slot is None or brief.device_id is None or alarm.shadow:
            return
        if brief.transition == "closed":
            own = self._open.get(brief.device_id, {})
            own.pop(brief.subject, None)
            if not own:
                self._open.pop(brief.device_id, None)
        else:
            self._open.setdefault(brief.device_id, {})[brief.subject] = alarm.ruleId, brief.state
        several = slot < len(self._heard_as) and self._heard_as[slot] > 1
        its = self._products.get(brief.productId or "")
        for product in self._products.values() if several else (its,):
            row = product.slots.row(slot) if product else -1
            if product is not None and row >= 0:
                product.state["touched"][row] = 1

    def changes(self) -> StateChanges:
        """What changed since the last call (see `store`): records of devices, the layouts that they
        have and the texts that they name. The records are made while one goes through them, as often as one
        does before the next slice: those of all devices at once would take as much as all else of them."""
        changed: list[tuple[_Product, Int64]] = []
        layouts: dict[bytes, bytes] = {}
        texts: dict[int, str] = {}
        for product in self._products.values():
            rows = np.flatnonzero(product.state["touched"])
            if len(rows):
                changed.append((product, rows))
                layouts[product.layout_id] = product.layout.encoded()
                texts |= product.texts_of(rows)
                product.state["touched"][:] = 0
        return StateChanges(_Records(self, changed) if changed else [], layouts, texts)

    def records(self, product: _Product, rows: Int64) -> list[tuple[bytes, bytes, bytes]]:
        """The records of some rows of a product, as they are now."""
        names, opened, its = self.devices.names, self._open, product.key
        found = [names[slot] for slot in product.slots.slot_of[rows].tolist()]
        keys = [device_key(name) for name in found]
        numbers = cut_records(product.layout, product.state, rows)
        records = [
            (key, its, cells + NO_ALARMS + key + NO_ALARMS) for key, cells in zip(keys, numbers, strict=True)
        ]
        for at, name in enumerate(found):
            if name in opened:
                records[at] = (keys[at], its, numbers[at] + record_tail(name, *self._alarms(name)))
        return records

    def _alarms(self, device_id: str) -> tuple[list[str], dict[str, int]]:
        """The ruleIds of a device's active alarms, and the flags of its open ones by ruleId: of several
        of one rule all must be acknowledged, else one of them is enough."""
        flags: dict[str, int] = {}
        for _, (ruleId, bits) in sorted(self._open.get(device_id, {}).items()):
            both = flags.get(ruleId, bits)
            flags[ruleId] = ((bits | both) & ~_ACKNOWLEDGED) | (bits & both & _ACKNOWLEDGED)
        return sorted(ruleId for ruleId, bits in flags.items() if bits & _ACTIVE), flags

    def devices_state(self) -> list[DeviceState]:
        """Every device that has ever been heard, once a product, by product in file order."""
        return [
            self._device(product, row)
            for product in self._products.values()
            for row in range(product.slots.count)
        ]

    def export_state(self) -> dict[str, dict[str, dict[str, Any]]]:
        """state.json of `replay`: device_id -> metric -> value, quality, time, position; devices
        and metrics in order of their names."""
        records: dict[str, list[DeviceState]] = {}
        for state in self.devices_state():
            records.setdefault(state.device_id, []).append(state)
        return {
            device_id: {
                name: {
                    "value": metric.value,
                    "quality": QUALITY_NAMES[metric.quality],
                    "time": time_text(metric.time_ns),
                    "position": metric.position,
                }
                for name, metric in metrics_by_name(records[device_id]).items()
            }
            for device_id in sorted(records)
        }

    def _device(self, product: _Product, row: int) -> DeviceState:
        device_id = self.devices.names[product.slots.slot_of[row]]
        return DeviceState(
            device_id,
            product.productId,
            product.metrics_of(row),
            product.windows_of(row),
            *self._alarms(device_id),
            int(product.state["standing"][row]),
        )

    def export(self) -> dict[str, Any]:
        products = {}
        for productId, product in self._products.items():
            count = product.slots.count
            products[productId] = {
                "slots": product.slots.export(),
                "texts": product.texts,
                "state": {name: array[:count] for name, array in product.state.items()},
                "formulas": product.reading.export(count) if product.reading is not None else None,
            }
        return {"products": products, "open": self._open, "parameters": self._parameters.export()}

    def load(self, state: dict[str, Any]) -> None:
        self._open = {
            device_id: {subject: (one[0], one[1]) for subject, one in own.items()}
            for device_id, own in state["open"].items()
        }
        self._parameters.load(state["parameters"])
        for productId, saved in state["products"].items():
            product = self._products[productId]
            product.slots = ProductSlots.load(saved["slots"])
            product.texts = saved["texts"]
            for name, (dtype, fresh) in _FRESH.items():
                kept = saved["state"].get(name, np.empty(0, dtype))  # `standing` came later
                product.state[name] = grown(kept, product.slots.capacity, fresh)
            if "standing" in saved["state"]:
                product.judged = product.slots.count
                product.has_former = bool((saved["state"]["standing"] == FORMER).any())
                self._count_heard(product.slots.slot_of[: product.judged])
            else:
                self._judge(product)
            if product.reading is not None and saved["formulas"] is not None:
                product.reading.load(saved["formulas"], product.slots.capacity, product.slots.count)


def _master(specs: Mapping[str, ProductState]) -> Mapping[str, Mapping[str, str]]:
    """Rows of devices; every product has the same."""
    return next((spec.devices for spec in specs.values()), {})


def _brief(event: Mapping[str, Any]) -> AlarmBrief:
    data = event["data"]
    return AlarmBrief(
        data["transition"], event["subject"], data["device_id"], data["productId"], flag_bits(data["state"])
    )
