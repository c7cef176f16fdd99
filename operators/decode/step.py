"""The decode stage: frames -> readings or rejects, a frame never being lost between them.

Order of what is looked at, the first that speaks wins: retained messages and the plant's own
control requests (filtered), garbage between frames (`resync`), product, device, emptiness, size,
a free slot, then whatever the product's decoder finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import (
    FRAME_HISTORICAL,
    FRAME_QUARANTINED,
    FRAME_RETAINED,
    GOOD,
    HISTORICAL,
    SEQ_PER_FRAME,
    TIME_UNCERTAIN,
    UNCERTAIN,
    Control,
    FrameBatch,
    Int32,
    Int64,
    ReadingBatch,
    Report,
    Slice,
    Ticks,
)
from operators.decode.columns import Decoded
from operators.decode.cuts import Place, between, late_batch
from operators.decode.held import HeldFrame, HeldFrames, sums
from operators.decode.holding import Holding
from operators.decode.master import MasterReader, master_device, numbers_of
from operators.decode.met_addresses import MetAddresses
from operators.decode.product import (
    NamedReadings,
    Product,
    keep_only,
    leave_out_too_many,
    leave_out_undeclared,
    no_readings,
)
from operators.decode.reports import UnreadableReportError, read_report
from operators.decode.routing import FILTERED, GO, HELD, MASTER, PROVISION, REPORT, UNREAD, Route, Router
from operators.decode.spec import DecodePlan
from operators.devices import Devices
from operators.master import RETIRED, MasterChanges, Registry, Row, RowChange
from operators.parameters import Parameters, answer_of, is_param
from operators.rejects import Reason, Reject
from operators.snapshot import Kept

UNKNOWN_KEPT: Final = 1_000  # different undeclared metrics that are counted by name
QUARANTINED: Final = "the engine ended on this frame, twice; the journal's entry `quarantine` says why"


class DecodeLogic(Kept):
    """The decode stage of one shard: `process`, `snapshot`, `restore`, and `apply` for a changed
    plant. The only writer of `devices`; slots are given in the order of the journal, to the first
    frame of a device that is neither filtered nor refused for its address or size. It judges and
    answers operators' actions of kind `param` and `master`.

    registry: master data at this place of the journal, which it changes (`operators.decode.master`
    reads the changes). A slice among whose frames they change is cut there: what stands before is
    decoded by what was known then."""

    def __init__(self, plan: DecodePlan, devices: Devices, registry: Registry | None = None) -> None:
        self.devices = devices
        self.registry = Registry() if registry is None else registry
        self.held = HeldFrames()
        self.parameters = Parameters()
        self._released_ns = 0  # when a plant was applied that lets go of frames; 0: none was
        self._arrived: Int64 | None = None  # of frames that are taken in late: when they came ...
        self._only: list[tuple[int, ...]] = []  # ... and which of their readings; none: all
        self._refused: dict[int, tuple[Reason, str]] = {}  # by position: changes that are none
        self.unknown_metrics: Counter[tuple[str, str]] = Counter()
        self._build(plan)

    def _build(self, plan: DecodePlan) -> None:
        self.plan = plan
        self.router = Router(plan)
        self.reader = MasterReader(plan, self.router, self.registry)
        self.parameter_devices: Mapping[str, str] = plan.parameters.devices
        self._own_products: dict[str, str] | None = None  # the same, once they differ from the plan's
        self.products = [Product(spec, plan.limits.depth, self.parameters) for spec in plan.products.values()]
        self._product_number = {name: number for number, name in enumerate(plan.products)}
        self._addresses = MetAddresses(plan, self.router, self.reader, self.devices, self._product_number)
        self._holding = Holding(plan, self.held, self._addresses)
        self._naming = [at for at, product in enumerate(self.products) if product.spec.names_devices]
        self._gone = (-1, 0, 0)  # of the registry's version and so many devices: how many are gone
        self._count_devices()

    def apply(self, plan: DecodePlan) -> None:
        """Take a changed plant in; devices keep their slots, products follow master data."""
        for slot, name in enumerate(self.devices.names):
            known = plan.routing.devices.get(name)
            if known is not None:
                self.devices.products[slot] = known.productId or self.devices.products[slot]
        self._build(plan)

    def export(self) -> dict[str, Any]:
        """The devices and their slots, the parameters that are set, the frames that wait; all else follows
        from the plant and the registry."""
        return {
            "devices": dict(self.devices.export()),
            "parameters": self.parameters.export(),
            "held": self.held.export(),
            "released_ns": self._released_ns,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `export` gave."""
        self.devices.load(state["devices"])
        self.parameters.load(state.get("parameters", {}))
        self.held.load(state.get("held", []))
        self._released_ns = state.get("released_ns", 0)
        self._build(self.plan)

    def _count_devices(self) -> None:
        for product in self.products:
            product.devices = 0
        for name in self.devices.products:
            number = self._product_number.get(name)
            if number is not None:
                self.products[number].devices += 1

    # -- one slice

    def let_in(self, item: Slice) -> list[Slice]:
        """The frames that a plant applied before this slice lets in, if there are any: to be asked before
        another plant is applied by it."""
        if not self._released_ns:
            return []
        return self._take_in(item, item.position - len(item.frames), self._let_go(), ())

    def process(self, item: Slice, before: Sequence[Slice] = ()) -> None:
        """Fill `sources`, `readings` and `rejects` of a slice or of its parts, and the ledger's terms of
        frames. before: what `let_in` has given."""
        parts = [*before, *self.let_in(item)]
        rest = replace(item) if parts else item
        self._refused.clear()
        parts += self._cut(rest) if rest.control is None else self._control(rest, rest.control)
        for pair in self.reader.refused_nodes:
            parts[-1].count(*pair, "nodes_refused")
        self.reader.refused_nodes.clear()
        if len(parts) > 1:
            item.parts = parts
        if self.held.changed:
            parts[-1].waiting = self.held.told()
            self.held.changed = False

    def _control(self, item: Slice, control: Control) -> list[Slice]:
        """A control, and the frames that it lets in."""
        after: list[HeldFrame] = []
        if is_param(control):
            self._set_parameter(item, control)
        elif control.kind == "action" and control.data.get("kind") == "master":
            rows, answer = self.reader.action(control)
            if answer is not None:
                item.answers.append(answer)
            if rows:
                after = self._change(rows)
                item.master = MasterChanges(control.at_ns, tuple(rows))
        elif control.kind == "plant":
            item.master = self.reader.whole(control.at_ns)
            self._released_ns = control.at_ns if self._lets_go() else 0
        first = replace(item) if after else item
        self._run(first)
        return [first, *self._take_in(item, item.position, after, (), control.at_ns)] if after else [first]

    # -- master data that change among the frames

    def _cut(self, item: Slice) -> list[Slice]:
        """The slice, decoded, in as many parts as master data change in it."""
        frames = item.frames
        if not frames.payload.flags.writeable:  # kernels are compiled for one kind of array
            frames.payload = frames.payload.copy()
        places = self._addresses.numbers_of(frames)
        verdict, tells = (
            self._addresses.table[row][places] for row in (MetAddresses.VERDICT, MetAddresses.TELLS)
        )
        parts: list[Slice] = []
        begun, end = Place(0, 0), Place(len(frames), len(frames.ticks.row))
        for place, at_ns, rows in self.reader.changes(frames, verdict, tells, self._refused):
            if place != begun:
                parts.append(self._part(item, begun, place))
            released = self._change(rows)
            position = int(frames.position[place.row]) if place.row < end.row else item.position
            parts += self._take_in(item, position, released, rows, at_ns)
            begun = place
        if not parts:
            self._run(item, places)
            return [item]
        if begun != end:
            parts.append(self._part(item, begun, end))
        return parts

    def _part(self, item: Slice, begin: Place, end: Place) -> Slice:
        """What stands between two places of a slice, decoded."""
        part = Slice(item.last_entry, item.position, between(item.frames, begin, end))
        if end.row < len(item.frames):
            part.position = int(item.frames.position[end.row])
        self._run(part)
        return part

    def _change(self, rows: Sequence[RowChange]) -> list[HeldFrame]:
        """Make master data what they became, and what follows from them; the frames that waited for it."""
        self.registry.take(rows)
        known: set[str] = set()
        for one in rows:
            if one.table == "devices" and one.row is not None:
                known.add(one.key)
                self._describe(one.key, one.row)
        if any(source.device.startswith("peer") for source in self.plan.routing.sources) or self._naming:
            self._addresses.forget()
        else:
            for name in known:
                self._addresses.route_anew(name)
        return self.held.release(known)

    def _describe(self, name: str, row: Row) -> None:
        """Take over what a row says of a device."""
        device = master_device(row)
        self.router.describe(name, device)
        own, texts = device.productId, self.plan.parameters.declared.get(device.productId, {})
        for product in self.products:
            product.own_params.pop(name, None)
            if product.spec.productId == own:
                product.own_params[name] = numbers_of(row, texts)
        if own:
            if self._own_products is None:
                self.parameter_devices = self._own_products = dict(self.parameter_devices)
            self._own_products[name] = own
        slot = self.devices.slots.get(name)
        if slot is None:
            return
        for product in self.products:
            product.forget_params(slot)
        if own and own != self.devices.products[slot]:
            self.devices.products[slot] = own
            self._count_devices()

    def _lets_go(self) -> bool:
        """Whether the plant that is applied now leaves a frame waiting no longer."""
        if self.plan.routing.unknown != "hold":
            return len(self.held) > 0
        return any(device in self.router.devices for device in self.held.devices)

    def _let_go(self) -> list[HeldFrame]:
        """The frames that wait no longer since a plant was applied."""
        if self.plan.routing.unknown != "hold":
            return self.held.release(list(self.held.devices))
        return self.held.release([name for name in self.held.devices if name in self.router.devices])

    def _take_in(
        self,
        item: Slice,
        position: int,
        found: Sequence[HeldFrame],
        rows: Sequence[RowChange],
        at_ns: int = 0,
    ) -> list[Slice]:
        """A part of frames that waited, behind what changed. They arrive now; where a payload has no time
        of its own, it is that of its arrival then."""
        at_ns = at_ns or self._released_ns
        self._released_ns = 0
        if not found and not rows:
            return []
        part = Slice(item.last_entry, position, late_batch(found, at_ns), released=bool(found))
        if rows:
            part.master = MasterChanges(at_ns, tuple(rows))
        for (source, productId, sole), count in sums(found).items():
            part.count(source, productId, "frames_in", -count)
            part.count(source, productId, "frames_held" if sole else "frames_decoded", -count)
        self._arrived = np.array([frame.ingest_ns for frame in found], np.int64)
        self._only = [frame.only for frame in found]
        self._run(part)
        self._arrived, self._only = None, []
        return [part]

    # -- the frames of one part

    def _run(self, item: Slice, places: Int64 | None = None) -> None:
        """places: what `MetAddresses.numbers_of` gives for its frames, where that is known."""
        batches: dict[int, ReadingBatch] = {}
        if len(item.frames):
            batches = self._frames(
                item, self._addresses.numbers_of(item.frames) if places is None else places
            )
        elif len(self.held):
            for ns in item.frames.ticks.ns.tolist():
                self._holding.expire(item, ns)
        item.sources = tuple(self._addresses.sources)
        ticks = item.frames.ticks
        for number, product in enumerate(self.products):
            if number in batches:
                item.readings.append(batches[number])
            elif product.devices and len(ticks.row):
                item.readings.append(no_readings(product.spec, ticks))

    def _set_parameter(self, item: Slice, control: Control) -> None:
        """Judge an operator's action, answer it, and do it where it is accepted."""
        answer = answer_of(
            control, self.plan.parameters._replace(devices=self.parameter_devices), self.parameters
        )
        if answer is None:
            return
        item.answers.append(answer)
        device = self.parameters.take(item)
        slot = self.devices.slots.get(device) if device is not None else None
        if slot is not None:
            for product in self.products:
                product.forget_params(slot)

    def _frames(self, item: Slice, places: Int64) -> dict[int, ReadingBatch]:
        frames = item.frames
        messages: dict[int, str] = {}
        status = self._addresses.table[MetAddresses.VERDICT][places].astype(np.int32)
        if frames.flags.any():
            status[(frames.flags & FRAME_RETAINED) != 0] = FILTERED
            for row in np.flatnonzero(frames.flags & FRAME_QUARANTINED).tolist():
                status[row], messages[row] = Reason.engine_error, QUARANTINED
        limit = self.plan.limits.frame
        if status.any() or frames.length.min() == 0 or frames.length.max() > limit:
            self._set_apart(frames, places, status, messages)
        named = self._named(frames, places, status, messages)
        waits = any(mine.waiting for mine in named.values()) or (status.any() and (status == HELD).any())
        if len(self.held) or waits:
            self._holding.hold(item, places, status, messages, named)
        self._give_slots(places, status, messages, named)
        batches = {}
        product = self._addresses.table[MetAddresses.PRODUCT][places]
        product[status != GO] = len(self.products)
        counts = np.bincount(product, minlength=len(self.products) + 1)
        for number in counts[:-1].nonzero()[0].tolist():
            if number in named:
                rows = named[number].rows
            elif counts[number] == len(product):
                rows = np.arange(len(product))
            else:
                rows = np.flatnonzero(product == number)
            batch = self._decode(item, number, rows, places[rows], status, messages, named.get(number))
            if len(batch) or len(frames.ticks.row):
                batches[number] = batch
        if status.any():
            self._tell_odd(item, places, status, messages)
        else:
            self._ledger(item, self._addresses.table[MetAddresses.PAIR][places], status)
        return batches

    def _set_apart(self, frames: FrameBatch, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """Frames that are empty or too large, and those whose payload names the device."""
        waiting = (status <= GO) & (status != FILTERED)
        status[waiting & (frames.length == 0)] = Reason.empty
        status[waiting & (frames.length > self.plan.limits.frame)] = Reason.too_large
        if (status == UNREAD).any():
            self._addresses.read_names(frames, places, status, messages)

    def _tell_odd(self, item: Slice, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """What is said of frames that are no readings: reports, changes of master data, rejects."""
        frames = item.frames
        if (status == REPORT).any():
            self._reports(item, places, status, messages)
        for row in np.flatnonzero((status == MASTER) | (status == PROVISION)).tolist():
            status[row], messages[row] = self._refused.get(int(frames.position[row]), (GO, ""))
        self._ledger(item, self._addresses.table[MetAddresses.PAIR][places], status)
        for row in np.flatnonzero(status > 0).tolist():
            item.rejects.append(self._reject(frames, row, places[row], int(status[row]), messages.get(row)))

    def _reports(self, item: Slice, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """Frames in which devices tell of alarms: decoded, with no reading."""
        frames = item.frames
        for row in np.flatnonzero(status == REPORT).tolist():
            route = self._addresses.route(places[row])
            ingest_ns, product = int(frames.ingest_ns[row]), self.plan.products[route.productId]
            spec = self.plan.routing.reports[route.role][route.productId]
            try:
                data, ts_ns = read_report(frames.frame(row), spec, product, ingest_ns, self.plan.limits.depth)
            except UnreadableReportError as error:
                status[row], messages[row] = error.reason, error.message
                continue
            status[row] = GO
            flags = int(self._addresses.table[MetAddresses.FLAGS][places[row]])
            if frames.flags[row] & FRAME_HISTORICAL:
                flags |= HISTORICAL
            item.reports.append(
                Report(
                    int(frames.position[row]), route.device_id, route.productId, route.hub_id, route.role,
                    ts_ns, ingest_ns, flags, data,
                )
            )  # fmt: skip

    def _named(
        self, frames: FrameBatch, places: Int64, status: Int32, messages: dict[int, str]
    ) -> dict[int, NamedReadings]:
        """Frames that name a device for each reading are decoded before slots are given, so that a
        slot is of the first frame that names its device, wherever it does."""
        found: dict[int, NamedReadings] = {}
        if not self._naming:
            return found
        product = self._addresses.table[MetAddresses.PRODUCT][places]
        for number in self._naming:
            rows = np.flatnonzero((product == number) & (status == GO))
            if not len(rows):
                continue
            params = np.full((len(self.products[number].decoder.param_names), len(rows)), np.nan)
            decoded = self._decoded(number, frames, rows, places[rows], params, status, messages)
            row = rows[decoded.frame]
            refused: dict[int, tuple[Reason, str]] = {}
            waiting: dict[int, dict[str, list[int]]] = {}
            told = {name: self._stranger(name, number) for name in set(decoded.names or ())}
            for at, name in enumerate(decoded.names or ()):
                why = told[name]
                if why is None:
                    continue
                if name and self.plan.routing.unknown == "hold" and why[0] == Reason.unknown_device:
                    waiting.setdefault(int(row[at]), {}).setdefault(name, []).append(at)
                else:
                    refused[at] = why
            slots = np.full(len(row), -1, np.int64)
            found[number] = NamedReadings(rows, decoded, row, slots, refused, waiting)
        return found

    def _stranger(self, name: str, number: int) -> tuple[Reason, str] | None:
        """Why a device that a payload names has no readings of this product; None: it has."""
        productId = self.products[number].spec.productId
        if not name:
            return Reason.unknown_device, "the reading names no device"
        known = self.router.devices.get(name)
        if known is None:
            if self.plan.routing.unknown != "accept":
                return Reason.unknown_device, f"'{name}' is not in devices.csv"
        elif known.productId not in ("", productId):
            return Reason.no_product, f"'{name}' is of product '{known.productId}', not of '{productId}'"
        return None

    def _give_slots(
        self, places: Int64, status: Int32, messages: dict[int, str], named: dict[int, NamedReadings]
    ) -> None:
        """A slot for each device that has none yet, in the order of the frames and their readings."""
        slots = self._addresses.table[MetAddresses.SLOT]
        given = slots[places]
        if not named and given.min() >= 0:
            return
        new = np.flatnonzero((status == GO) & (given == -1))
        if not len(new) and not named:
            return
        limit = self.plan.limits.devices
        numbers, first = np.unique(places[new], return_index=True)
        routes = {number: self._addresses.route(number) for number in numbers.tolist()}
        asking: list[tuple[int, int, int, Route]] = [
            (int(new[at]), 0, number, routes[number])
            for number, at in zip(numbers.tolist(), first.tolist(), strict=True)
        ]
        for product, mine in named.items():
            met: set[str] = set()
            for at, name in enumerate(mine.decoded.names or ()):
                if name not in met and name not in self.devices.slots and at not in mine.refused:
                    met.add(name)
                    row = int(mine.row[at])
                    asking.append((row, at, int(places[row]), self._route_of(name, product, places[row])))
        for _, _, number, route in sorted(asking, key=lambda one: one[:2]):
            if route.device_id not in self.devices.slots and self._room(limit):
                hub = self.router.hub(self._addresses.address(number))
                self.devices.add(route.device_id, route.productId, hub)
                self.products[self._product_number[route.productId]].devices += 1
        for number, route in routes.items():
            self._addresses.has_slot(number, self.devices.slots.get(route.device_id, -1))
        for row in new[slots[places[new]] < 0].tolist():
            status[row] = Reason.device_limit
            messages[row] = self._one_too_many(self._addresses.route(places[row]).device_id)
        for mine in named.values():
            for at, name in enumerate(mine.decoded.names or ()):
                mine.slot[at] = self.devices.slots.get(name, -1)
                if mine.slot[at] < 0 and at not in mine.refused:
                    mine.refused[at] = Reason.device_limit, self._one_too_many(name)

    def _room(self, limit: int) -> bool:
        """Whether one device more may have a slot; those that are retired, or not known any more where
        only known ones are taken in, make room."""
        if len(self.devices) < limit:
            return True
        state = self.registry.version, len(self.devices)
        if self._gone[:2] != state:
            known, accepts = self.router.devices, self.plan.routing.unknown == "accept"
            gone = sum(
                known[name].status == RETIRED if name in known else not accepts for name in self.devices.names
            )
            self._gone = (*state, gone)
        return len(self.devices) - self._gone[2] < limit

    def _route_of(self, name: str, product: int, place: Any) -> Route:
        known = self.router.devices.get(name)
        route = self._addresses.route(place)
        hub = (known.hub_id if known is not None else "") or route.hub_id
        return Route(route.source, GO, self.products[product].spec.productId, name, hub)

    def _one_too_many(self, device: str) -> str:
        return f"'{device}' is one device more than limits.devices allows ({self.plan.limits.devices})"

    def _decoded(
        self,
        number: int,
        frames: FrameBatch,
        rows: Int64,
        places: Int64,
        params: npt.NDArray[np.float64],
        status: Int32,
        messages: dict[int, str],
    ) -> Decoded:
        """What the product's decoder finds in the frames at `rows`; their statuses are set."""
        product, table = self.products[number], self._addresses.table
        if self._arrived is not None:
            frames = replace(frames, ingest_ns=self._arrived)
        if self._addresses.resubmitted:  # to these, arrival is when they came the first time
            arrived = table[MetAddresses.ARRIVED][places]
            arrival = frames.ingest_ns.copy()
            arrival[rows] = np.where(arrived > 0, arrived, arrival[rows])
            frames = replace(frames, ingest_ns=arrival)
        decoded = product.decoder.decode(frames, rows, params)
        leave_out_too_many(decoded)
        if any(self._only):
            asked = [self._only[row] for row in rows[decoded.frame].tolist()]
            index = decoded.index.tolist()
            keep_only(
                decoded,
                np.array([not mine or at in mine for mine, at in zip(asked, index, strict=True)], bool),
            )
        if self._addresses.resubmitted:
            only = table[MetAddresses.READING][places[decoded.frame]]
            keep_only(decoded, (only < 0) | (only == decoded.index))
        if product.spec.reject_unknown and decoded.unknown_frame is not None:
            leave_out_undeclared(product, decoded, frames, rows, params)
        if decoded.status.any():
            status[rows] = decoded.status
            for at in np.flatnonzero(decoded.status > 0).tolist():
                messages[int(rows[at])] = decoded.detail.get(at, "")
        for name, count in decoded.unknown.items():
            key = (product.spec.productId, name)
            if key in self.unknown_metrics or len(self.unknown_metrics) < UNKNOWN_KEPT:
                self.unknown_metrics[key] += count
        return decoded

    def _decode(
        self,
        item: Slice,
        number: int,
        rows: Int64,
        places: Int64,
        status: Int32,
        messages: dict[int, str],
        named: NamedReadings | None,
    ) -> ReadingBatch:
        product, frames, table = self.products[number], item.frames, self._addresses.table
        if named is None:
            slots = table[MetAddresses.SLOT][places]
            params = product.params(slots, self.devices)
            decoded = self._decoded(number, frames, rows, places, params, status, messages)
            device = slots[decoded.frame].astype(np.int32)
        else:
            decoded, device = named.decoded, named.slot.astype(np.int32)
        places = places[decoded.frame]
        row = rows[decoded.frame]
        flags = table[MetAddresses.FLAGS][places].astype(np.uint8)
        if frames.flags.any():
            flags[(frames.flags[row] & FRAME_HISTORICAL) != 0] |= HISTORICAL
        quality = decoded.quality
        doubtful = decoded.time_source != 0
        if doubtful.any():
            flags[doubtful] |= TIME_UNCERTAIN
            quality = np.where((quality == GOOD) & doubtful, UNCERTAIN, quality).astype(np.uint8)
        source = table[MetAddresses.SOURCE][places].astype(np.int32)
        for at, count in enumerate(np.bincount(source).tolist()):
            item.count(self._addresses.sources[at], product.spec.productId, "readings_decoded", count)
        ticks = frames.ticks
        batch = ReadingBatch(
            productId=product.spec.productId,
            device=device,
            ts_ns=decoded.ts_ns,
            value=np.ascontiguousarray(decoded.value),
            quality=np.ascontiguousarray(quality),
            seq=(frames.position[row] * SEQ_PER_FRAME + decoded.index).astype(np.uint64),
            ingest_ns=frames.ingest_ns[row],
            flags=flags,
            source=source,
            texts=decoded.texts,
            ticks=Ticks(np.searchsorted(row, ticks.row).astype(np.int64), ticks.ns),
        )
        if named is None or not named.refused:
            return batch
        return self._without_strangers(item, batch, named, places)

    def _without_strangers(
        self, item: Slice, batch: ReadingBatch, named: NamedReadings, places: Int64
    ) -> ReadingBatch:
        """Readings of devices that are none of this product's become rejects."""
        frames = item.frames
        names = named.decoded.names or []
        for at, (reason, message) in named.refused.items():
            row = int(named.row[at])
            address = frames.addresses[int(frames.address[row])]
            route = self._addresses.route(places[at])
            item.count(route.source, batch.productId, "readings_rejected")
            item.rejects.append(
                Reject(
                    reason,
                    frames.told(row, message),
                    address.source,
                    address.topic,
                    names[at],
                    batch.productId,
                    int(frames.position[row]),
                    int(batch.seq[at]) % SEQ_PER_FRAME,
                    int(frames.ingest_ns[row]),
                    frames.frame(row),
                )
            )
        keep = np.ones(len(batch), np.bool_)
        keep[list(named.refused)] = False
        return batch.take(keep)

    def _ledger(self, item: Slice, pair: Int64, status: Int32) -> None:
        width = len(self._addresses.pairs)
        terms = {"frames_in": np.bincount(pair, minlength=width)}
        if status.any():
            terms["frames_decoded"] = np.bincount(pair[status == GO], minlength=width)
            terms["frames_rejected"] = np.bincount(pair[status > 0], minlength=width)
            terms["frames_filtered"] = np.bincount(pair[status == FILTERED], minlength=width)
            terms["frames_held"] = np.bincount(pair[status == HELD], minlength=width)
        else:
            terms["frames_decoded"] = terms["frames_in"]
        for number in terms["frames_in"].nonzero()[0].tolist():
            source, productId = self._addresses.pairs[number]
            for term, counts in terms.items():
                item.count(source, productId, term, int(counts[number]))

    def _reject(self, frames: FrameBatch, row: int, place: Any, status: int, message: str | None) -> Reject:
        route = self._addresses.route(place)
        address = frames.addresses[int(frames.address[row])]
        if not message:
            if route.verdict != status and status == Reason.empty:
                message = "the frame is empty"
            elif route.verdict != status and status == Reason.too_large:
                message = f"{int(frames.length[row])} bytes; limits.frame allows {self.plan.limits.frame}"
            else:
                message = route.message or Reason(status).name
        return Reject(
            Reason(status),
            frames.told(row, message),
            address.source,
            address.topic,
            route.device_id,
            route.productId,
            int(frames.position[row]),
            0,
            int(frames.ingest_ns[row]),
            frames.frame(row),
        )
