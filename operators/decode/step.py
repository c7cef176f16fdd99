"""The decode stage: frames -> readings or rejects, a frame never being lost between them.

Order of what is looked at, the first that speaks wins: retained messages and the plant's own
control requests (filtered), garbage between frames (`resync`), product, device, emptiness, size,
a free slot, then whatever the product's decoder finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import (
    FRAME_HISTORICAL,
    FRAME_QUARANTINED,
    FRAME_RETAINED,
    GOOD,
    HISTORICAL,
    LIVE_REFERENCE,
    SEQ_PER_FRAME,
    TIME_UNCERTAIN,
    UNCERTAIN,
    Address,
    AddressBook,
    BookedAddresses,
    Bytes,
    Control,
    FrameBatch,
    Int32,
    Int64,
    ReadingBatch,
    Report,
    Slice,
    Ticks,
    told_of_line,
)
from operators.contract.messages import duration_text
from operators.decode.columns import Decoded, Decoder
from operators.decode.cuts import Place, between, late_batch
from operators.decode.decoders import DeviceNames, Names, Way, build_decoder
from operators.decode.held import HeldFrame, HeldFrames, sums
from operators.decode.known_names import KnownNames
from operators.decode.master import MasterReader, master_device, numbers_of
from operators.decode.reports import UnreadableReportError, read_report
from operators.decode.routing import FILTERED, GO, HELD, MASTER, PROVISION, REPORT, UNREAD, Route, Router
from operators.decode.spec import DecodePlan, ProductDecode
from operators.devices import Devices
from operators.growing import grown
from operators.master import RETIRED, MasterChanges, Registry, Row, RowChange
from operators.parameters import Overlay, Parameters, answer_of, is_param
from operators.rejects import Reason, Reject
from operators.snapshot import Kept

ADDRESSES_KEPT: Final = 200_000  # beyond it the table of addresses is begun anew
UNKNOWN_KEPT: Final = 1_000  # different undeclared metrics that are counted by name
QUARANTINED: Final = "the engine ended on this frame, twice; the journal's entry `quarantine` says why"
_NO_PLACE: Final = -1
_BY_READING: Final = -2  # slot of an address whose payloads name a device for each reading


class _Product:
    """One product's decoder, and the parameters of its devices by slot."""

    def __init__(self, spec: ProductDecode, depth: int, parameters: Parameters) -> None:
        self.own_params: dict[str, Mapping[str, float]] = dict(spec.device_params)
        self.spec = replace(spec, device_params=Overlay(self.own_params, parameters))
        self.decoder: Decoder = build_decoder(self.spec, depth)
        self.devices = 0  # how many slots are of this product
        self._defaults = np.array([spec.params.get(n, np.nan) for n in self.decoder.param_names], np.float64)
        self._params = np.empty((0, len(self.decoder.param_names)))
        self._filled: set[int] = set()

    def params(self, slots: npt.NDArray[np.int64], devices: Devices) -> npt.NDArray[np.float64]:
        """float64[P, R] for the devices of R frames."""
        names = self.decoder.param_names
        if not names:
            return np.empty((0, len(slots)))
        if len(self._params) < len(devices):
            grown = np.empty((max(64, 2 * len(devices)), len(names)))
            grown[: len(self._params)] = self._params
            self._params = grown
        for slot in set(slots.tolist()) - self._filled:
            own = self.spec.device_params.get(devices.names[slot], {})
            self._params[slot] = [own.get(n, d) for n, d in zip(names, self._defaults, strict=True)]
            self._filled.add(slot)
        return np.ascontiguousarray(self._params[slots].T)

    def forget_params(self, slot: int) -> None:
        """Ask again for the parameters of a device, at its next frame."""
        self._filled.discard(slot)


@dataclass(slots=True, eq=False)
class _Named:
    """The readings of one product whose payload names their devices. rows: int64[R] of the frames that
    were decoded; row, slot: int64[N] each reading's frame, and its device or -1; refused: reading ->
    why it is none of this plant's; waiting: row -> unknown device -> its readings, which are to be held;
    held: those that are."""

    rows: Int64
    decoded: Decoded
    row: Int64
    slot: Int64
    refused: dict[int, tuple[Reason, str]]
    waiting: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)

    def leave_out(self) -> None:
        """Go on without the readings that are held."""
        keep = np.ones(len(self.row), np.bool_)
        keep[self.held] = False
        now_at = np.cumsum(keep) - 1
        self.refused = {int(now_at[at]): why for at, why in self.refused.items() if keep[at]}
        _keep(self.decoded, keep)
        self.row, self.slot = self.row[keep], self.slot[keep]


class _Addresses:
    """What is known of each address so far, as columns that a batch takes from."""

    COLUMNS: Final = ("verdict", "product", "slot", "pair", "source", "flags", "reading", "arrived", "tells")
    VERDICT, PRODUCT, SLOT, PAIR, SOURCE, FLAGS, READING, ARRIVED, TELLS = range(9)

    def __init__(self) -> None:
        self.rows: dict[Any, int] = {}
        self.of: dict[str, list[int]] = {}  # by device
        self.keys: list[Any] = []
        self.routes: list[Route] = []
        self.ways: dict[int, Way] = {}  # of those whose payloads name the device
        self.names = KnownNames()  # that payloads of an address held: the number of both
        self.table: Int64 = np.empty((len(self.COLUMNS), 256), np.int64)
        self.resubmitted = False  # whether any address is of a frame that is sent again

    def add(self, key: Any, route: Route, row: tuple[int, ...]) -> int:
        """Keep a route under its key; returns its number."""
        number = len(self.routes)
        if number == self.table.shape[1]:
            self.table = np.concatenate((self.table, np.empty_like(self.table)), axis=1)
        self.table[:, number] = row
        self.routes.append(route)
        self.keys.append(key)
        self.rows[key] = number
        if route.device_id:
            self.of.setdefault(route.device_id, []).append(number)
        return number

    def address(self, number: int) -> Address:
        """The address of a number."""
        key = self.keys[number]
        found: Address = key if isinstance(key, Address) else key[0]
        return found


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
        self.parameter_devices = dict(plan.parameters.devices)
        self.products = [
            _Product(spec, plan.limits.depth, self.parameters) for spec in plan.products.values()
        ]
        self._product_number = {name: number for number, name in enumerate(plan.products)}
        self._sources = [source.name for source in plan.routing.sources]
        self._source_number = {name: number for number, name in enumerate(self._sources)}
        self._pairs: list[tuple[str, str]] = []
        self._pair_number: dict[tuple[str, str], int] = {}
        self._addresses = _Addresses()
        self._last: tuple[Sequence[Address], Int64] | None = None
        self._book: AddressBook | None = None
        self._by_number: Int64 = np.empty(0, np.int64)  # of the book: the table's number, or -1
        self._names = DeviceNames(plan)
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
        places = self._routes(frames)
        verdict, tells = (
            self._addresses.table[row][places] for row in (_Addresses.VERDICT, _Addresses.TELLS)
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
            self._addresses, self._last, self._book = _Addresses(), None, None
        else:
            for name in known:
                for number in self._addresses.of.get(name, ()):
                    self._route_anew(number)
        return self.held.release(known)

    def _describe(self, name: str, row: Row) -> None:
        """Take over what a row says of a device."""
        device = self.router.devices[name] = master_device(row)
        own, texts = device.productId, self.plan.parameters.declared.get(device.productId, {})
        for product in self.products:
            product.own_params.pop(name, None)
            if product.spec.productId == own:
                product.own_params[name] = numbers_of(row, texts)
        if own:
            self.parameter_devices[name] = own
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

    def _hold(
        self,
        item: Slice,
        places: Int64,
        status: Int32,
        messages: dict[int, str],
        named: Mapping[int, _Named],
    ) -> None:
        """Keep frames of unknown devices until they are known, as many as the caps allow, and of frames
        that name several devices the readings of such; and give up those that have waited for `hold_for`
        at a tick."""
        frames, ticks, done = item.frames, item.frames.ticks, 0
        parts = {row: mine for mine in named.values() for row in mine.waiting}
        for row in sorted({*np.flatnonzero(status == HELD).tolist(), *parts}):
            while done < len(ticks.row) and ticks.row[done] <= row:
                self._expire(item, int(ticks.ns[done]))
                done += 1
            route = self._addresses.routes[places[row]]
            frame = HeldFrame(
                int(frames.position[row]), int(frames.ingest_ns[row]), route.device_id, route.productId,
                frames.addresses[int(frames.address[row])], int(frames.flags[row]), frames.frame(row),
                frames.line(row),
            )  # fmt: skip
            if row in parts:
                if self._hold_parts(frame, row, parts[row]):
                    status[row] = HELD
                continue
            over = self._over(1, len(frame.payload))
            if over:
                status[row], messages[row] = Reason.unknown_device, f"{route.message}{over}"
                continue
            self.held.hold(frame)
        for ns in ticks.ns[done:].tolist():
            self._expire(item, ns)
        for mine in named.values():
            if mine.held:
                mine.leave_out()

    def _over(self, count: int, size: int) -> str:
        """Why so many more frames of so many bytes together cannot wait; "" where they can."""
        limits, over = self.plan.limits, ""
        if len(self.held) + count > limits.held:
            over = f"limits.held allows {limits.held} frames"
        elif self.held.size + size > limits.held_bytes:
            over = f"limits.held_bytes allows {limits.held_bytes} bytes"
        return over and f", and no more frames can wait: {over}"

    def _hold_parts(self, frame: HeldFrame, row: int, mine: _Named) -> bool:
        """Hold the readings of unknown devices of a frame. Whether they are all of it."""
        fits: dict[str, list[int]] = {}
        for device, readings in mine.waiting[row].items():
            count = len(fits) + 1
            over = self._over(count, count * len(frame.payload))
            if over:
                why = f"'{device}' is not in devices.csv{over}"
                mine.refused |= dict.fromkeys(readings, (Reason.unknown_device, why))
            else:
                fits[device] = readings
        sole = sum(map(len, fits.values())) == int((mine.row == row).sum())
        for device, readings in fits.items():
            only = tuple(mine.decoded.index[readings].tolist())
            self.held.hold(frame._replace(device=device, only=only, sole=sole))
            mine.held += readings
        return sole

    def _expire(self, item: Slice, now_ns: int) -> None:
        for parts in self.held.expire(now_ns - self.plan.routing.hold_for):
            frame = parts[0]
            source, productId = frame.address.source, frame.productId
            if frame.sole:
                item.count(source, productId, "frames_held", -1)
                item.count(source, productId, "frames_rejected")
                names = "' and '".join(part.device for part in parts)
                self._give_up(item, frame, f"'{names}' {'is' if len(parts) == 1 else 'are'}")
                continue
            for part in parts:
                item.count(source, productId, "readings_decoded", len(part.only))
                item.count(source, productId, "readings_rejected", len(part.only))
                for index in part.only:
                    self._give_up(item, part, f"'{part.device}' is", index)

    def _give_up(self, item: Slice, frame: HeldFrame, who: str, index: int = 0) -> None:
        waited = duration_text(self.plan.routing.hold_for)
        were = "was" if who.endswith("is") else "were"
        why = told_of_line(
            frame.line, f"{who} not in devices.csv, and {were} not provisioned within {waited}"
        )
        item.rejects.append(
            Reject(
                Reason.unknown_device, why, frame.address.source, frame.address.topic, frame.device,
                frame.productId, frame.position, index, frame.ingest_ns, frame.payload,
            )
        )  # fmt: skip

    # -- the frames of one part

    def _run(self, item: Slice, places: Int64 | None = None) -> None:
        """places: what `_routes` gives for its frames, where that is known."""
        batches: dict[int, ReadingBatch] = {}
        if len(item.frames):
            batches = self._frames(item, self._routes(item.frames) if places is None else places)
        elif len(self.held):
            for ns in item.frames.ticks.ns.tolist():
                self._expire(item, ns)
        item.sources = tuple(self._sources)
        ticks = item.frames.ticks
        for number, product in enumerate(self.products):
            if number in batches:
                item.readings.append(batches[number])
            elif product.devices and len(ticks.row):
                item.readings.append(_empty(product.spec, ticks))

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
        status = self._addresses.table[_Addresses.VERDICT][places].astype(np.int32)
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
            self._hold(item, places, status, messages, named)
        self._give_slots(places, status, messages, named)
        batches = {}
        product = self._addresses.table[_Addresses.PRODUCT][places]
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
            self._ledger(item, self._addresses.table[_Addresses.PAIR][places], status)
        return batches

    def _set_apart(self, frames: FrameBatch, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """Frames that are empty or too large, and those whose payload names the device."""
        waiting = (status <= GO) & (status != FILTERED)
        status[waiting & (frames.length == 0)] = Reason.empty
        status[waiting & (frames.length > self.plan.limits.frame)] = Reason.too_large
        if (status == UNREAD).any():
            self._read_names(frames, places, status, messages)

    def _tell_odd(self, item: Slice, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """What is said of frames that are no readings: reports, changes of master data, rejects."""
        frames = item.frames
        if (status == REPORT).any():
            self._reports(item, places, status, messages)
        for row in np.flatnonzero((status == MASTER) | (status == PROVISION)).tolist():
            status[row], messages[row] = self._refused.get(int(frames.position[row]), (GO, ""))
        self._ledger(item, self._addresses.table[_Addresses.PAIR][places], status)
        for row in np.flatnonzero(status > 0).tolist():
            item.rejects.append(self._reject(frames, row, places[row], int(status[row]), messages.get(row)))

    def _routes(self, frames: FrameBatch) -> Int64:
        """The number of each frame's address in the table; int64[N]."""
        if max(len(self._addresses.rows), len(self._addresses.names)) > ADDRESSES_KEPT:
            self._addresses, self._last, self._book = _Addresses(), None, None
        if self._last is not None and self._last[0] is frames.addresses:
            return self._last[1][frames.address]
        if isinstance(frames.addresses, BookedAddresses):
            numbers = self._booked(frames.addresses)
        else:
            numbers = np.array([self._number(address) for address in frames.addresses], np.int64)
        self._last = (frames.addresses, numbers)
        return numbers[frames.address]

    def _booked(self, addresses: BookedAddresses) -> Int64:
        """The numbers of addresses that are met by their number in a book."""
        if self._book is not addresses.book:
            self._book = addresses.book
            self._by_number = np.empty(0, np.int64)
        if len(self._by_number) < len(addresses.book):
            self._by_number = grown(self._by_number, 2 * len(addresses.book), -1)
        found = self._by_number[addresses.numbers]
        for at in np.flatnonzero(found < 0).tolist() if found.min(initial=0) < 0 else ():
            found[at] = self._by_number[addresses.numbers[at]] = self._number(addresses[at])
        return found

    def _number(self, address: Address) -> int:
        number = self._addresses.rows.get(address)
        return self._add(address, self.router.route(address)) if number is None else number

    def _add(self, key: Any, route: Route) -> int:
        return self._addresses.add(key, route, self._row(key, route))

    def _route_anew(self, number: int) -> None:
        """Master data of the device of an address have changed."""
        key = self._addresses.keys[number]
        address, named = self._addresses.address(number), None if isinstance(key, Address) else key[1]
        route = self._addresses.routes[number] = self.router.route(address, named)
        self._addresses.table[:, number] = self._row(key, route)

    def _row(self, key: Any, route: Route) -> tuple[int, ...]:
        """What stands of an address in the table."""
        source = self.router.source(route.source)
        pair = self._pair(route.source, route.productId)
        flags = (LIVE_REFERENCE if source.live else 0) | (HISTORICAL if source.historical else 0)
        if route.source not in self._source_number:
            self._source_number[route.source] = len(self._sources)
            self._sources.append(route.source)
        product = self._product_number.get(route.productId, -1)
        slot = self.devices.slots.get(route.device_id, -1) if route.verdict == GO else -1
        if route.verdict == GO and not route.device_id:
            slot = _BY_READING
        number = self._source_number[route.source]
        self._addresses.resubmitted |= route.arrived_ns > 0
        address = key if isinstance(key, Address) else key[0]
        tells = self.reader.tells(route, address)
        return (route.verdict, product, slot, pair, number, flags, route.reading, route.arrived_ns, tells)

    def _pair(self, source: str, productId: str) -> int:
        pair = (source, productId)
        number = self._pair_number.get(pair)
        if number is None:
            number = self._pair_number[pair] = len(self._pairs)
            self._pairs.append(pair)
        return number

    def _read_names(self, frames: FrameBatch, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """Frames whose payload names their device: read the name and route them by it."""
        unread = np.flatnonzero(status == UNREAD)
        ways: dict[Way, list[int]] = {}
        for number in np.unique(places[unread]).tolist():
            ways.setdefault(self._way(number), []).append(number)
        for way, numbers in ways.items():
            rows = unread if len(ways) == 1 else unread[np.isin(places[unread], numbers)]
            self._route_by_names(self._names.read(way, frames, rows), frames, rows, places, status, messages)

    def _way(self, number: int) -> Way:
        """How the frames of an address name their device."""
        way = self._addresses.ways.get(number)
        if way is None:
            address = self._addresses.address(number)
            source = self.router.source(address.source)
            way = self._names.way(source, self.router.takers(source, address.topic))
            self._addresses.ways[number] = way
        return way

    def _route_by_names(
        self,
        names: Names,
        frames: FrameBatch,
        rows: Int64,
        places: Int64,
        status: Int32,
        messages: dict[int, str],
    ) -> None:
        table, left = self._addresses, np.arange(len(rows))
        if names.span is not None:
            known = table.names.find(frames.payload, names.span, places[rows])
            met = (known >= 0) & (names.status == 0)
            if met.any():
                status[rows[met]] = table.table[_Addresses.VERDICT][known[met]]
                places[rows[met]] = known[met]
                left = np.flatnonzero(~met)
        for at in left.tolist():
            row = int(rows[at])
            if names.status[at]:
                status[row] = names.status[at]
                messages[row] = names.detail.get(at, "")
                continue
            address, device = frames.addresses[int(frames.address[row])], names.device[at]
            number = table.rows.get((address, device))
            if number is None:
                number = self._add((address, device), self.router.route(address, device))
            if names.span is not None:
                start, stop = names.span[at, :2].tolist()
                table.names.add(frames.payload[start:stop].tobytes(), int(places[row]), number)
            places[row] = number
            status[row] = table.table[_Addresses.VERDICT, number]

    def _reports(self, item: Slice, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """Frames in which devices tell of alarms: decoded, with no reading."""
        frames = item.frames
        for row in np.flatnonzero(status == REPORT).tolist():
            route = self._addresses.routes[places[row]]
            ingest_ns, product = int(frames.ingest_ns[row]), self.plan.products[route.productId]
            spec = self.plan.routing.reports[route.role][route.productId]
            try:
                data, ts_ns = read_report(frames.frame(row), spec, product, ingest_ns, self.plan.limits.depth)
            except UnreadableReportError as error:
                status[row], messages[row] = error.reason, error.message
                continue
            status[row] = GO
            flags = int(self._addresses.table[_Addresses.FLAGS, places[row]])
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
    ) -> dict[int, _Named]:
        """Frames that name a device for each reading are decoded before slots are given, so that a
        slot is of the first frame that names its device, wherever it does."""
        found: dict[int, _Named] = {}
        if not self._naming:
            return found
        product = self._addresses.table[_Addresses.PRODUCT][places]
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
            found[number] = _Named(rows, decoded, row, slots, refused, waiting)
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
        self, places: Int64, status: Int32, messages: dict[int, str], named: dict[int, _Named]
    ) -> None:
        """A slot for each device that has none yet, in the order of the frames and their readings."""
        slots = self._addresses.table[_Addresses.SLOT]
        given = slots[places]
        if not named and given.min() >= 0:
            return
        new = np.flatnonzero((status == GO) & (given == -1))
        if not len(new) and not named:
            return
        limit = self.plan.limits.devices
        numbers, first = np.unique(places[new], return_index=True)
        asking: list[tuple[int, int, int, Route]] = [
            (int(new[at]), 0, number, self._addresses.routes[number])
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
        for number in numbers.tolist():
            slots[number] = self.devices.slots.get(self._addresses.routes[number].device_id, -1)
        for row in new[slots[places[new]] < 0].tolist():
            status[row] = Reason.device_limit
            messages[row] = self._one_too_many(self._addresses.routes[places[row]].device_id)
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
        route = self._addresses.routes[place]
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
            arrived = table[_Addresses.ARRIVED][places]
            arrival = frames.ingest_ns.copy()
            arrival[rows] = np.where(arrived > 0, arrived, arrival[rows])
            frames = replace(frames, ingest_ns=arrival)
        decoded = product.decoder.decode(frames, rows, params)
        self._too_many(decoded)
        if any(self._only):
            asked = [self._only[row] for row in rows[decoded.frame].tolist()]
            index = decoded.index.tolist()
            _keep(
                decoded,
                np.array([not mine or at in mine for mine, at in zip(asked, index, strict=True)], bool),
            )
        if self._addresses.resubmitted:
            only = table[_Addresses.READING][places[decoded.frame]]
            _keep(decoded, (only < 0) | (only == decoded.index))
        if product.spec.reject_unknown and decoded.unknown_frame is not None:
            self._undeclared(product, decoded, frames, rows, params)
        if decoded.status.any():
            status[rows] = decoded.status
            for at in np.flatnonzero(decoded.status > 0).tolist():
                messages[int(rows[at])] = decoded.detail.get(at, "")
        for name, count in decoded.unknown.items():
            key = (product.spec.productId, name)
            if key in self.unknown_metrics or len(self.unknown_metrics) < UNKNOWN_KEPT:
                self.unknown_metrics[key] += count
        return decoded

    @staticmethod
    def _undeclared(
        product: _Product,
        decoded: Decoded,
        frames: FrameBatch,
        rows: Int64,
        params: npt.NDArray[np.float64],
    ) -> None:
        """With `on_unknown_metric: reject`, a frame with a metric that is not declared is a reject."""
        assert decoded.unknown_frame is not None
        over = np.flatnonzero((decoded.unknown_frame != 0) & (decoded.status == GO))
        for at in over.tolist():
            alone = product.decoder.decode(
                frames, rows[at : at + 1], np.ascontiguousarray(params[:, at : at + 1])
            )
            name = min(alone.unknown, default="?")
            decoded.status[at], decoded.place[at] = Reason.unmatched, _NO_PLACE
            decoded.detail[at] = (
                f"'{name}' is no metric of {product.spec.productId} (on_unknown_metric: reject)"
            )
        if len(over):
            _drop(decoded, over)

    def _decode(
        self,
        item: Slice,
        number: int,
        rows: Int64,
        places: Int64,
        status: Int32,
        messages: dict[int, str],
        named: _Named | None,
    ) -> ReadingBatch:
        product, frames, table = self.products[number], item.frames, self._addresses.table
        if named is None:
            slots = table[_Addresses.SLOT][places]
            params = product.params(slots, self.devices)
            decoded = self._decoded(number, frames, rows, places, params, status, messages)
            device = slots[decoded.frame].astype(np.int32)
        else:
            decoded, device = named.decoded, named.slot.astype(np.int32)
        places = places[decoded.frame]
        row = rows[decoded.frame]
        flags = table[_Addresses.FLAGS][places].astype(np.uint8)
        if frames.flags.any():
            flags[(frames.flags[row] & FRAME_HISTORICAL) != 0] |= HISTORICAL
        quality = decoded.quality
        doubtful = decoded.time_source != 0
        if doubtful.any():
            flags[doubtful] |= TIME_UNCERTAIN
            quality = np.where((quality == GOOD) & doubtful, UNCERTAIN, quality).astype(np.uint8)
        source = table[_Addresses.SOURCE][places].astype(np.int32)
        for at, count in enumerate(np.bincount(source).tolist()):
            item.count(self._sources[at], product.spec.productId, "readings_decoded", count)
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
        self, item: Slice, batch: ReadingBatch, named: _Named, places: Int64
    ) -> ReadingBatch:
        """Readings of devices that are none of this product's become rejects."""
        frames = item.frames
        names = named.decoded.names or []
        for at, (reason, message) in named.refused.items():
            row = int(named.row[at])
            address = frames.addresses[int(frames.address[row])]
            route = self._addresses.routes[places[at]]
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

    @staticmethod
    def _too_many(decoded: Decoded) -> None:
        """A frame with more readings than `seq` has room for becomes a reject, readings and all."""
        if not len(decoded.index) or int(decoded.index.max()) < SEQ_PER_FRAME - 1:
            return
        over = np.unique(decoded.frame[decoded.index >= SEQ_PER_FRAME - 1])
        for at in over.tolist():
            decoded.status[at] = Reason.malformed
            decoded.place[at] = _NO_PLACE
            decoded.detail[at] = f"more than {SEQ_PER_FRAME - 1} readings in one frame"
        _drop(decoded, over)

    def _ledger(self, item: Slice, pair: Int64, status: Int32) -> None:
        width = len(self._pairs)
        terms = {"frames_in": np.bincount(pair, minlength=width)}
        if status.any():
            terms["frames_decoded"] = np.bincount(pair[status == GO], minlength=width)
            terms["frames_rejected"] = np.bincount(pair[status > 0], minlength=width)
            terms["frames_filtered"] = np.bincount(pair[status == FILTERED], minlength=width)
            terms["frames_held"] = np.bincount(pair[status == HELD], minlength=width)
        else:
            terms["frames_decoded"] = terms["frames_in"]
        for number in terms["frames_in"].nonzero()[0].tolist():
            source, productId = self._pairs[number]
            for term, counts in terms.items():
                item.count(source, productId, term, int(counts[number]))

    def _reject(self, frames: FrameBatch, row: int, place: Any, status: int, message: str | None) -> Reject:
        route = self._addresses.routes[place]
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


def _drop(decoded: Decoded, frames: npt.NDArray[np.integer[Any]]) -> None:
    """Take the readings of these frames out."""
    _keep(decoded, ~np.isin(decoded.frame, frames))


def _keep(decoded: Decoded, keep: npt.NDArray[np.bool_]) -> None:
    """Leave only these readings."""
    decoded.frame, decoded.index = decoded.frame[keep], decoded.index[keep]
    decoded.ts_ns, decoded.time_source = decoded.ts_ns[keep], decoded.time_source[keep]
    decoded.value, decoded.quality = decoded.value[:, keep], decoded.quality[:, keep]
    if decoded.names is not None:
        decoded.names = [name for name, kept in zip(decoded.names, keep.tolist(), strict=True) if kept]


def _empty(spec: ProductDecode, ticks: Ticks) -> ReadingBatch:
    """No rows, only ticks."""
    metrics = len(spec.metrics)
    flags: Bytes = np.empty(0, np.uint8)
    return ReadingBatch(
        productId=spec.productId,
        device=np.empty(0, np.int32),
        ts_ns=np.empty(0, np.int64),
        value=np.empty((metrics, 0)),
        quality=np.empty((metrics, 0), np.uint8),
        seq=np.empty(0, np.uint64),
        ingest_ns=np.empty(0, np.int64),
        flags=flags,
        source=np.empty(0, np.int32),
        texts={},
        ticks=Ticks(np.zeros(len(ticks.row), np.int64), ticks.ns),
    )
